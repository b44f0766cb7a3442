-- SPDX-License-Identifier: Apache-2.0
-- wrk -t1 -c64 -d60 --latency -s bench/completions.lua http://127.0.0.1:8080/v1/completions
-- Completions of 16 tokens, each with a prompt of its own, at depths 3, 6 and 12 in turn.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

local depths = {3, 6, 12}
local n = 0

request = function()
  n = n + 1
  local body = '{"prompt": "The city number %d was", "max_tokens": 16, "depth": %d}'
  return wrk.format(nil, nil, nil, body:format(n, depths[n % 3 + 1]))
end

done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("p99 %.1f ms; errors: connect %d read %d write %d status %d timeout %d\n",
    latency:percentile(99) / 1000, e.connect, e.read, e.write, e.status, e.timeout))
end
