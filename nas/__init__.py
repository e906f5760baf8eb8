"""Many trials, and the user: search spaces, samplers, scheduler, driver, commands."""
