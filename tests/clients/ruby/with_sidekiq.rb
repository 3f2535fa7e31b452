# A Sidekiq worker as `sidekiq` makes it.

require "sidekiq"
require "sidekiq/cli"

FOLDER = ENV.fetch("TOLLGATE_WORKER_FOLDER")
# Behind this port is a Tollgate, and not Redis itself.
CHECKS_LIMITS = ENV.fetch("TOLLGATE_STORE") != "direct"
CHECK_SECONDS = 0.02

def say(line)
  File.write(File.join(FOLDER, "said"), "#{line}\n", mode: "a")
end

class Job
  include Sidekiq::Worker

  def perform(name, seconds)
    say "begun #{name}"
    sleep seconds
    say "did #{name}"
  end
end

def put_jobs
  $stdin.each_line do |line|
    name, seconds = line.split
    Job.perform_async(name, Float(seconds))
    say "put #{name}"
  rescue => error
    say "could not put #{name}: #{error.inspect}"
  end
end

# Writes how long each answer took in ms, and its field `degraded` or the error.
def check_limits
  clock = -> { Process.clock_gettime(Process::CLOCK_MONOTONIC, :float_millisecond) }
  File.open(File.join(FOLDER, "checks"), "a") do |checks|
    checks.sync = true
    loop do
      asked = clock.call
      outcome = begin
        Sidekiq.redis { |redis| redis.call("RL.CHECK", "worker:sidekiq", 1_000_000_000, 60)[5] }
      rescue => error
        error.inspect
      end
      checks.puts format("%.1f %s", clock.call - asked, outcome)
      sleep CHECK_SECONDS
    end
  end
end

Sidekiq.configure_server do |config|
  config.redis = { url: "redis://127.0.0.1:#{ENV.fetch("TOLLGATE_PORT")}/0" }
  config.on(:startup) do
    Thread.new { put_jobs }
    Thread.new { check_limits } if CHECKS_LIMITS
    say "ready"
  end
end

# Sidekiq loads this same file as the application that it serves.
if $PROGRAM_NAME == __FILE__
  $PROGRAM_NAME = "sidekiq"
  sidekiq = Sidekiq::CLI.instance
  sidekiq.parse(["--require", __FILE__, "--concurrency", "1"])
  sidekiq.run
end
