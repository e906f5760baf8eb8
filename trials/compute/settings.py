"""Settings of Ray as environment variables, which it reads when it is imported or started; import
this module before Ray. The user's own settings take precedence."""

import os

from detector.base.process import disable_telemetry, limit_opencv, relax_gc

_SETTINGS = {
    # Its handler would replace ours of SIGTERM, print a trace and abort; see detector.base.process.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Each attempt to reach a cluster takes half a minute; by default Ray makes twenty.
    "RAY_NUM_REDIS_GET_RETRIES": "2",
    # At Ray's default niceness of 15, workers starve beside any other load; training is the main
    # job, and to run it in the background one starts the command itself with nice.
    "RAY_worker_niceness": "0",
    # Tune's workers have their own environment; those that Ray starts in advance would stay idle.
    "RAY_prestart_worker_first_driver": "0",
    # Ray's future default; it warns otherwise.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)

disable_telemetry()
limit_opencv()
relax_gc()  # in Ray's workers, too, which import this module first
