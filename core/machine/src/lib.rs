//! What a virtual machine is to ktstr: its specification and the hypervisor port.
