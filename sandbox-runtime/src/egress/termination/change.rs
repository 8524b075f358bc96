//! What a protocol was changed to: bytes that move both ways until both sides have ended.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::egress::budget::Meter;

/// Moves what comes from inside out, and what comes from outside in.
pub(super) async fn run<I, O>(inside: &mut I, outside: &mut O, meter: &Meter) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin,
    O: AsyncRead + AsyncWrite + Unpin,
{
    let (mut inside_read, mut inside_write) = tokio::io::split(inside);
    let (mut outside_read, mut outside_write) = tokio::io::split(outside);
    let out = one_way(&mut inside_read, &mut outside_write, |bytes| meter.sent(bytes));
    let back = one_way(&mut outside_read, &mut inside_write, |bytes| meter.received(bytes));
    tokio::try_join!(out, back).map(|((), ())| ())
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: impl Fn(usize) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; MOVED];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        count(read)?;
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
    }
}

const MOVED: usize = 16 << 10;
