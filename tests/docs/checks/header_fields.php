
$tollgate = new Redis();
$tollgate->connect('localhost', 6380);

/** Fails unless these are the fields. What is soon may be as much as two seconds less, for the time that passes. */
function look(array $fields, array $wanted): void {
    $names = ['RateLimit-Policy', 'RateLimit', 'Retry-After'];
    foreach ($names as $at => $name) {
        $soon = fn($found) => '(' . implode('|', range($found[1] - 2, $found[1])) . ')';
        $pattern = preg_replace_callback('/(\d+) soon/', $soon, $wanted[$at] ?? '');
        $got = $fields[$name] ?? '';
        if (!preg_match("~^$pattern$~", $got)) {
            throw new Exception("$name: $got, not $pattern");
        }
    }
}

$ask = fn(...$arguments) => headerFields($tollgate->rawCommand('RL.CHECK', ...[...$arguments, 'FULL']));
$api = '"api-1";q=3;w=60, "api-2";q=100;w=3600';
foreach ([[2, 99], [1, 98], [0, 97]] as [$minute, $hour]) {
    look($ask('user:42', 'api'), [$api, "\"api-1\";r=$minute;t=60 soon, \"api-2\";r=$hour;t=3600 soon"]);
}
look($ask('user:42', 'api'), [$api, '"api-1";r=0;t=60 soon', '60 soon']);
look($ask('user:42', 'search'), [
    '"search-1";q=20, "search-2";q=600;w=60',
    '"search-1";r=19;t=1, "search-2";r=599;t=60 soon',
]);
look($ask('ip:10.6.6.6', 'api'), []);
look($ask('ip:10.7.7.7', 'api'), []);
foreach ([1, 2] as $_) {
    look($ask('user:42', 'trial'), ['"trial-1";q=1;w=60', '"trial-1";r=0;t=60 soon']);
}
look($ask('user:42', 2, '1m'), ['"default-1";q=2;w=60', '"default-1";r=1;t=60 soon']);

// Seconds are rounded up, and a window that is not of whole seconds has no `w`.
$limit = fn($limit, $window, $remaining, $retryAfter, $next) => [
    'limit', $limit, 'window_ms', $window, 'remaining', $remaining, 'retry_after_ms', $retryAfter, 'next_ms', $next,
];
$limits = [$limit(5, 1500, 0, 1001, 1000), $limit(9, 2000, 4, 0, 1), $limit(9, 3000, 9, 0, 0)];
$reply = fn($allowed, $reason, $retryAfter) => [
    'allowed', $allowed, 'reason', $reason, 'policy', 'p', 'retry_after_ms', $retryAfter, 'limits', $limits,
];
$policies = '"p-1";q=5, "p-2";q=9;w=2, "p-3";q=9;w=3';
look(headerFields($reply(0, 'limit', 1001)), [$policies, '"p-1";r=0;t=1', '2']);
look(headerFields($reply(1, 'ok', 0)), [$policies, '"p-1";r=0;t=1, "p-2";r=4;t=1, "p-3";r=9']);
