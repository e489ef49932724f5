<?php
// Streams read no proxy variable: this is what they need.
$proxy = ['proxy' => str_replace('http://', 'tcp://', getenv('HTTPS_PROXY'))];

$steps = [
    ['get', 'GET', '/get'],
    ['post', 'POST', '/echo'],
    ['big', 'GET', '/big'],
    ['healed', 'GET', '/healed'],
];
foreach ($steps as [$step, $method, $path]) {
    $options = $method === 'POST'
        ? ['method' => 'POST', 'header' => 'Content-Type: text/plain', 'content' => str_repeat('x', 100_000)]
        : [];
    $body = file_get_contents($argv[1] . $path, false, stream_context_create(['http' => $proxy + $options]));
    $status = (int) explode(' ', $http_response_header[0])[1];
    echo json_encode(['step' => $step, 'status' => $status, 'sha256' => hash('sha256', $body)]), "\n";
}
