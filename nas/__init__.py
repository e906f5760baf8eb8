"""Many trials, and the user: space, sampler, scheduler, driver, command lines."""
