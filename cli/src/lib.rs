//! Test Linux schedulers like code: a VM-based test framework for sched_ext and EEVDF.
