//! Blurs an image on workers that write into the caller's memory, and saves it as a PNG.
//!
//! `cargo run --release -p procession-examples --example image_blur -- blurred.png`
//!
//! The source is shared, and each task is lent a band of the target: no pixel is copied to a worker or back. The same function blurs
//! the whole image on this thread, into an ordinary vector, and the two results are equal.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::{fs, io, path::Path};

use procession::{SharedSlice, SharedSliceMut, parallel, worker};

const WIDTH: usize = 640;
const HEIGHT: usize = 480;
/// The number of pixels on each side that a pixel is mixed with.
const RADIUS: usize = 6;
/// The rows of a band.
const BAND: usize = 16;

/// Writes the rows from `first` on: each pixel becomes the mean of its neighbourhood.
#[worker]
fn blur(source: &[u8], first: usize, target: &mut [u8]) {
    for (y, row) in (first..).zip(target.chunks_mut(WIDTH)) {
        let rows = y.saturating_sub(RADIUS)..(y + RADIUS + 1).min(HEIGHT);
        for (x, to) in row.iter_mut().enumerate() {
            let columns = x.saturating_sub(RADIUS)..(x + RADIUS + 1).min(WIDTH);
            let near = rows.clone().flat_map(|y| &source[y * WIDTH..][columns.clone()]);
            let (sum, count) = near.fold((0, 0), |(sum, count), &pixel| (sum + u32::from(pixel), count + 1));
            *to = u8::try_from(sum / count).expect("a mean of bytes is a byte");
        }
    }
}

/// Discs on a checkerboard.
fn picture() -> impl Iterator<Item = u8> {
    (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (x, y))).map(|(x, y)| {
        let (dx, dy) = ((x % 160).abs_diff(80), (y % 160).abs_diff(80));
        let is_light = (x / 40 + y / 40) % 2 == 0;
        if dx * dx + dy * dy < 50 * 50 {
            255
        } else if is_light {
            160
        } else {
            32
        }
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let source = SharedSlice::from_iter(WIDTH * HEIGHT, picture())?;
    let mut target = SharedSliceMut::zeroed(WIDTH * HEIGHT)?;
    let bands = (0..HEIGHT).step_by(BAND).zip(target.chunks_mut(BAND * WIDTH));
    parallel!(blur(&source, y, band) for (y, band) in bands)?;

    let mut here = vec![0; WIDTH * HEIGHT];
    blur(&source, 0, &mut here);
    assert_eq!(*target, here);

    let blurred = target.freeze();
    let png = png(&blurred);
    assert_eq!(&png[1..4], b"PNG");
    match std::env::args_os().nth(1) {
        Some(path) => save(Path::new(&path), &png)?,
        None => println!("{} bytes of PNG: give a path to save them", png.len()),
    }
    Ok(())
}

fn save(path: &Path, png: &[u8]) -> io::Result<()> {
    fs::write(path, png)?;
    println!("saved {}", path.display());
    Ok(())
}

/// Returns the image in greys as a PNG whose data is stored as it is.
fn png(pixels: &[u8]) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let size = |n: usize| u32::try_from(n).expect("an image is not that large").to_be_bytes();
    // Eight bits of grey, without interlacing.
    chunk(&mut png, b"IHDR", &[&size(WIDTH)[..], &size(HEIGHT), &[8, 0, 0, 0, 0]].concat());
    // Each row begins with its filter: none.
    let rows: Vec<u8> = pixels.chunks(WIDTH).flat_map(|row| [&[0], row].concat()).collect();
    // The head of zlib, and blocks of deflate that are stored, the last of which says so.
    let mut data = vec![0x78, 0x01];
    let mut blocks = rows.chunks(usize::from(u16::MAX)).peekable();
    while let Some(block) = blocks.next() {
        let len = u16::try_from(block.len()).expect("a block is that long at most");
        data.push(u8::from(blocks.peek().is_none()));
        data.extend([len.to_le_bytes(), (!len).to_le_bytes()].concat());
        data.extend_from_slice(block);
    }
    let (a, b) = rows.iter().fold((1, 0), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    data.extend((b << 16 | a).to_be_bytes());
    chunk(&mut png, b"IDAT", &data);
    chunk(&mut png, b"IEND", &[]);
    png
}

/// Appends a chunk: its length, its name, its data, and the CRC-32 of both.
fn chunk(png: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    let crc = name.iter().chain(data).fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    });
    png.extend(u32::try_from(data.len()).expect("a chunk is not that large").to_be_bytes());
    png.extend_from_slice(name);
    png.extend_from_slice(data);
    png.extend((!crc).to_be_bytes());
}
