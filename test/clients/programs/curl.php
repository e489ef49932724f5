<?php
$handle = curl_init();
$steps = [
    ['get', 'GET', '/get'],
    ['post', 'POST', '/echo'],
    ['big', 'GET', '/big'],
    ['keep-1', 'GET', '/keep/1'],
    ['keep-2', 'GET', '/keep/2'],
    ['healed', 'GET', '/healed'],
];
foreach ($steps as [$step, $method, $path]) {
    curl_reset($handle);
    curl_setopt_array($handle, [CURLOPT_URL => $argv[1] . $path, CURLOPT_RETURNTRANSFER => true]);
    if ($method === 'POST') {
        curl_setopt($handle, CURLOPT_POSTFIELDS, str_repeat('x', 100_000));
    }
    $body = curl_exec($handle);
    if ($body === false) {
        fwrite(STDERR, curl_error($handle) . "\n");
    }
    $status = curl_getinfo($handle, CURLINFO_RESPONSE_CODE);
    echo json_encode(['step' => $step, 'status' => $status, 'sha256' => hash('sha256', $body)]), "\n";
}
