
if (check($tollgate, 'user:42', 1, '1m') !== [true, 0] || check($tollgate, 'user:42', 1, '1m')[0]) {
    exit(1);
}
if ($tollgate->rawCommand('RL.CHECK', 'user:42', 'wrong', '1m') !== false || !$tollgate->getLastError()) {
    exit(2);
}
