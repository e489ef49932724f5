require 'digest'
require 'json'
require 'net/http'

base = URI(ARGV[0])
steps = [
  ['get', 'GET', '/get'],
  ['post', 'POST', '/echo'],
  ['big', 'GET', '/big'],
  ['keep-1', 'GET', '/keep/1'],
  ['keep-2', 'GET', '/keep/2'],
  ['healed', 'GET', '/healed']
]

Net::HTTP.start(base.host, base.port, use_ssl: true) do |http|
  steps.each do |step, method, path|
    body = method == 'POST' ? 'x' * 100_000 : nil
    response = http.send_request(method, path, body)
    line = { step: step, status: response.code.to_i, sha256: Digest::SHA256.hexdigest(response.body) }
    puts JSON.generate(line)
  end
end
