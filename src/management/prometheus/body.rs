//! A scrape's text on its way: piece by piece, as the client takes it.

use std::convert::Infallible;
use std::io::Write as _;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Frame;

use super::plan::Writer;

/// How the text is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
}

/// See the module's documentation.
pub(super) struct Lines {
    writer: Writer,
    encoder: Option<GzEncoder<Vec<u8>>>,
    /// Bytes of text, not compressed.
    size: u64,
    done: bool,
    /// Others get their turn between two pieces.
    yielded: bool,
}

impl Lines {
    pub(super) fn new(writer: Writer, coding: Coding) -> Self {
        let encoder = (coding == Coding::Gzip).then(|| GzEncoder::new(Vec::new(), Compression::fast()));
        Self { writer, encoder, size: 0, done: false, yielded: true }
    }

    /// The next bytes to be sent, of which there may be none yet; none at all at the end.
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.done {
            return None;
        }
        let piece = self.writer.next();
        self.size += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        if piece.is_none() {
            self.done = true;
            let scrape = &self.writer.scrape;
            let management = &scrape.management;
            let took_ms = management.now().0.saturating_sub(scrape.now_ms);
            management.scrapes.count(scrape.endpoint, took_ms, self.size);
        }
        match (piece, self.encoder.take()) {
            (piece, None) => piece,
            (Some(piece), Some(mut encoder)) => {
                // Writing to a vector does not fail.
                let _ = encoder.write_all(&piece);
                let compressed = mem::take(encoder.get_mut());
                self.encoder = Some(encoder);
                Some(compressed)
            }
            (None, Some(encoder)) => encoder.finish().ok(),
        }
    }
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if !mem::replace(&mut self.yielded, false) {
            self.yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            match self.next() {
                None => return Poll::Ready(None),
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes.into())))),
            }
        }
    }
}
