//! CPU topology of a machine under test: NUMA nodes, LLCs, cores, threads, cpulists.
