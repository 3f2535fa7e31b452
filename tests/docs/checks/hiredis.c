
int main(void) {
    long long retry_after_ms = -1;
    redisContext *tollgate = connect_tollgate();
    for (int turn = 0; turn < 11; turn++)
        if (check(tollgate, "user:42", &retry_after_ms) != (turn < 10))
            return 1;
    if (retry_after_ms <= 0 || retry_after_ms > 1000)
        return 2;
    redisFree(tollgate);
    return 0;
}
