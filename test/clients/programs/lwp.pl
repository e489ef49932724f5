use strict;
use warnings;
use Digest::SHA 'sha256_hex';
use HTTP::Request;
use LWP::UserAgent;

my $base = $ARGV[0];
my $agent = LWP::UserAgent->new(keep_alive => 1);
my @steps = (
    ['get', 'GET', '/get'],
    ['post', 'POST', '/echo'],
    ['big', 'GET', '/big'],
    ['keep-1', 'GET', '/keep/1'],
    ['keep-2', 'GET', '/keep/2'],
    ['healed', 'GET', '/healed'],
);
for (@steps) {
    my ($step, $method, $path) = @$_;
    my $request = HTTP::Request->new($method, $base . $path);
    if ($method eq 'POST') {
        $request->content('x' x 100_000);
        $request->content_type('text/plain');
    }
    my $response = $agent->request($request);
    warn $response->status_line unless $response->is_success;
    printf qq({"step":"%s","status":%d,"sha256":"%s"}\n),
        $step, $response->code, sha256_hex($response->content);
}
