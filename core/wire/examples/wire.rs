//! Sends a guest's messages through a byte stream that arrives in odd pieces:
//! `cargo run -p ktstr-wire --example wire`.

use ktstr_wire::{Decoder, Encoder, Message, Stage, WireError, chunks};

fn main() -> Result<(), WireError> {
    let mut stream = Vec::new();
    let mut encoder = Encoder::new();
    encoder.encode(&Message::hello("1f2e3d"), &mut stream)?;
    encoder.encode(&Message::Stage(Stage::TestStart), &mut stream)?;
    for piece in chunks(&[b'.'; 100_000]) {
        encoder.encode(&Message::Stdout(piece.to_vec()), &mut stream)?;
    }
    encoder.encode(&Message::ExitCode(0), &mut stream)?;
    encoder.encode(&Message::Goodbye, &mut stream)?;

    let mut decoder = Decoder::new();
    for piece in stream.chunks(4099) {
        decoder.push(piece);
        while let Some(message) = decoder.next()? {
            match message {
                Message::Stage(stage) => println!("the guest is {stage}"),
                Message::Stdout(bytes) => println!("{} bytes of output", bytes.len()),
                other => println!("{other:?}"),
            }
        }
    }
    decoder.finish()?;

    let mut cut = Decoder::new();
    cut.push(&stream[..30]);
    while cut.next()?.is_some() {}
    println!("cut short: {}", cut.finish().unwrap_err());
    Ok(())
}
