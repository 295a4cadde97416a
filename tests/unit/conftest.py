from hypothesis import HealthCheck, settings

# A test fails for what it finds, not for how busy the machine is.
settings.register_profile("auditstream", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("auditstream")
