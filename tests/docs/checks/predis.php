
if (check($tollgate, 'user:42', 1, '1m') !== [true, 0] || check($tollgate, 'user:42', 1, '1m')[0]) {
    exit(1);
}
try {
    check($tollgate, 'user:42', 'wrong', '1m');
    exit(2);
} catch (RuntimeException $error) {
}
