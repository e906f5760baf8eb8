"""How Ray runs here, for whatever of this project imports it next. Ray reads its environment when
it is imported or started; what the user has set stands."""

import os

from detector.base.process import collect_seldom

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Each try to reach a cluster takes half a minute already; Ray would make twenty.
    "RAY_NUM_REDIS_GET_RETRIES": "2",
    # Workers at Ray's own niceness of 15 starve beside anything else; training is the main job, and
    # whoever wants it in the background starts the command itself with nice.
    "RAY_worker_niceness": "0",
    # Tune's workers have an environment of their own; those that Ray starts in advance stay idle.
    "RAY_prestart_worker_first_driver": "0",
    # The coming default of Ray, which warns otherwise.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)

collect_seldom()  # Ray's workers begin here
