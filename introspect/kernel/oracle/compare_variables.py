"""Variables by the types that DWARF tells, against drgn's reading of the same DWARF.

Those asked for by path are compared by value. Of all variables whose name is in the symbol table once, the size is
compared, the value of a number, and of a struct where each member starts.
"""
import drgn

NUMBERS = (drgn.TypeKind.INT, drgn.TypeKind.BOOL, drgn.TypeKind.ENUM, drgn.TypeKind.POINTER)

def resolved(kind):
    while kind.kind == drgn.TypeKind.TYPEDEF:
        kind = kind.type
    return kind

def variable(prog, name):
    # The linker script makes the one an alias of the other; the kernel declares both.
    return prog[name] if name == "jiffies" else prog.variable(name)

def against_drgn(prog, dump, check, follow, plain):
    for path, ours in dump["paths"]:
        root, dot, rest = path.partition(".")
        try:
            theirs = plain(follow(variable(prog, root), dot + rest), ours)
        except (LookupError, AttributeError):
            theirs = {"error": "Absent"}
        check(f"VariablePath:{path}", ours, theirs)
    for name, size, value, members in dump["each"]:
        try:
            theirs = variable(prog, name)
            kind = resolved(theirs.type_)
            if kind.kind == drgn.TypeKind.ARRAY and kind.length is None:
                # Of two definitions (`linux_banner`) drgn took the one that doesn't know the length; which, is chance.
                their_size = prog.symbol(name).size if size else 0
            else:
                their_size = drgn.sizeof(theirs)
        except (LookupError, TypeError):
            # Incomplete: declared only, in the unit that drgn asks.
            check("Variable:known to drgn", name, None)
            continue
        check("Variable:size", size, their_size)
        # Absent: drgn took the name from a unit that only declares it.
        if value is not None and kind.kind in NUMBERS and not theirs.absent_:
            # By their bytes: those of a bool in memory that was freed after the boot are neither 0 nor 1.
            try:
                theirs = theirs.to_bytes_()
            except drgn.FaultError:
                # aarch64 unmaps what it needed for the boot only; we must not have read it either.
                theirs = None
            check("Variable:value", value & (1 << 8 * size) - 1, theirs and int.from_bytes(theirs, "little"))
        if members is not None:
            check("Variable:members", members, [[m.name or "", m.bit_offset] for m in kind.members])
