# What cannot run on this machine must not pass unseen: whoever leaves a test out writes a line `ignored: which: why` to
# standard error and into the file that TOLLGATE_TEST_IGNORED names. Whoever sources this repeats those lines at its end,
# unless it was started by one who does.

tell_ignored() {
    local line="ignored: $1: $2"
    echo "$line" >&2
    [[ -z ${TOLLGATE_TEST_IGNORED:-} ]] || echo "$line" >>"$TOLLGATE_TEST_IGNORED"
}

repeat_ignored() {
    if [[ -s $TOLLGATE_TEST_IGNORED ]]; then
        echo "$(wc -l <"$TOLLGATE_TEST_IGNORED") could not run here:"
        sort "$TOLLGATE_TEST_IGNORED"
    fi >&2
    rm -f "$TOLLGATE_TEST_IGNORED"
}

if [[ -z ${TOLLGATE_TEST_IGNORED:-} ]]; then
    TOLLGATE_TEST_IGNORED=$(mktemp)
    export TOLLGATE_TEST_IGNORED
    trap repeat_ignored EXIT
fi
