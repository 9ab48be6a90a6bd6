//! Guest memory as a debugger sees it: physical reads, page-table walks.
