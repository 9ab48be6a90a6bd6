//! Interrupts of a guest, steered by a scenario.

mod common;

use ktstr::prelude::*;

/// The number of an interrupt of a virtio device, which the kernel lets be moved.
fn of_a_virtio_device() -> Result<u32> {
    let text = std::fs::read_to_string("/proc/interrupts").context("reading /proc/interrupts")?;
    let line = text.lines().find(|line| line.contains("virtio"));
    let number = line.and_then(|line| line.split(':').next()).and_then(|number| number.trim().parse().ok());
    number.with_context(|| format!("looking for an interrupt of a virtio device in:\n{text}"))
}

/// Each step's op is seen in the kernel's own file.
#[ktstr_test(cores = 2, duration_s = 1)]
fn an_interrupt_goes_to_the_cpus_that_it_is_steered_to(ctx: &Ctx) -> Result<AssertResult> {
    let irq = of_a_virtio_device()?;
    let mut result = AssertResult::pass();
    for cpus in [CpuSet::from([1]), CpuSet::from([0]), CpuSet::from([0, 1])] {
        let steps = vec![
            Step::with_defs(vec![CgroupDef::named("busy").workers(1)], HoldSpec::frac(0.2)),
            Step::new(vec![Op::steer_irq(irq, cpus.clone())], HoldSpec::frac(0.1)),
        ];
        result.merge(execute_steps(ctx, steps)?);
        let path = format!("/proc/irq/{irq}/smp_affinity_list");
        let seen = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        if seen.trim() != cpus.to_string() {
            bail!("{path} holds {seen:?}: expected {cpus}");
        }
    }
    Ok(result)
}

#[ktstr_test(ignore, cores = 2, duration_s = 1)]
fn steers_what_is_not_there(ctx: &Ctx) -> Result<AssertResult> {
    let op = Op::steer_irq(4000, CpuSet::from([1]));
    execute_steps(ctx, vec![Step::new(vec![op], HoldSpec::FULL)])
}

/// That of the timer of old, which belongs to one CPU.
#[ktstr_test(ignore, cores = 2, duration_s = 1)]
fn steers_what_can_not_be_moved(ctx: &Ctx) -> Result<AssertResult> {
    let op = Op::steer_irq(0, CpuSet::from([1]));
    execute_steps(ctx, vec![Step::new(vec![op], HoldSpec::FULL)])
}

#[test]
fn an_interrupt_that_is_not_there_and_one_that_stays_are_told() {
    let text = common::fails("steers_what_is_not_there", &[]);
    let known = "step 1: SteerIrq: there is no interrupt 4000: expected one of 0";
    common::assert_says(&text, &[known, "/proc/interrupts"]);
    let text = common::fails("steers_what_can_not_be_moved", &[]);
    common::assert_says(&text, &["step 1: SteerIrq: writing \"1\" to /proc/irq/0/smp_affinity_list: "]);
}
