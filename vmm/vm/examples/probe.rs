//! Says what `/dev/kvm` is good for here.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{:?}", ktstr_vmm::probe(std::time::Duration::from_secs(5))?);
    Ok(())
}
