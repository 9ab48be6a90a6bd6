//! What the running system says of itself: CPU topology from sysfs, host context.
