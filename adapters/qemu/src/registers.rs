//! Reads registers out of what the monitor's `info registers -a` prints.

use ktstr_machine::VcpuRegisters;

/// One entry a vCPU; lines that say nothing of interest are skipped.
pub(crate) fn parse(text: &str) -> Vec<VcpuRegisters> {
    let mut all: Vec<VcpuRegisters> = Vec::new();
    for line in text.lines() {
        if let Some(number) = line.trim().strip_prefix("CPU#") {
            if let Ok(cpu) = number.trim().parse() {
                all.push(VcpuRegisters { cpu, ..VcpuRegisters::default() });
            }
            continue;
        }
        let Some(current) = all.last_mut() else { continue };
        if let Some(ip) = hex_after(line, "RIP=") {
            current.ip = ip;
        }
        if let Some(sp) = hex_after(line, "RSP=") {
            current.sp = sp;
        }
        if let Some(cr3) = hex_after(line, "CR3=") {
            current.page_table = cr3;
        }
        if line.contains("HLT=1") {
            current.halted = true;
        }
    }
    all
}

fn hex_after(line: &str, key: &str) -> Option<u64> {
    let rest = &line[line.find(key)? + key.len()..];
    let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cpus_in_the_monitors_format() {
        let text = "\r\nCPU#0\r\nRAX=0000000000000001 RBX=0 RCX=0 RDX=0\r\n\
                    RSI=0 RDI=0 RBP=0 RSP=ffffc90000013e48\r\n\
                    RIP=ffffffff81a3c2f1 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
                    CR0=80050033 CR2=0 CR3=0000000002a10000 CR4=000006b0\r\n\r\nCPU#1\r\nRIP=10 RFL=2 HLT=0\r\n";
        let regs = parse(text);
        assert_eq!(
            regs,
            [
                VcpuRegisters {
                    cpu: 0,
                    ip: 0xffff_ffff_81a3_c2f1,
                    sp: 0xffff_c900_0001_3e48,
                    page_table: 0x2a1_0000,
                    halted: true
                },
                VcpuRegisters { cpu: 1, ip: 0x10, ..Default::default() },
            ]
        );
    }

    #[test]
    fn nonsense_gives_nothing() {
        assert!(parse("RIP=zz\nno cpu here").is_empty());
    }
}
