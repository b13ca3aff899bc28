//! WebSocket frames as servers send them: headers are read, payloads handed on as they stand. Knows no protocol inside.
//!
//! Source: RFC 6455, section 5.2.

/// What a frame is for: its opcode.
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A whole frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub opcode: u8,
    /// No more frames belong to the message.
    pub last: bool,
    pub payload: &'a [u8],
}

/// The server masked a frame, or set a reserved bit although no extension was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

/// The whole frames at the start of some bytes, one after the other.
pub struct Frames<'a> {
    bytes: &'a [u8],
    taken: usize,
}

impl<'a> Frames<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Frames<'a> {
        Frames { bytes, taken: 0 }
    }

    /// Bytes of the frames handed out so far.
    #[inline]
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// The next frame; `None` if it is not there as a whole.
    #[inline]
    pub fn next(&mut self) -> Result<Option<Frame<'a>>, Broken> {
        let Some((first, header, length)) = head(&self.bytes[self.taken..])? else { return Ok(None) };
        let start = self.taken + header;
        let Some(payload) = start.checked_add(length).and_then(|end| self.bytes.get(start..end)) else {
            return Ok(None);
        };
        self.taken = start + length;
        Ok(Some(Frame { opcode: first & 0x0f, last: first & 0x80 != 0, payload }))
    }
}

/// First byte, length of the header, length of the payload.
#[inline]
fn head(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, Broken> {
    let [first, length, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 || length & 0x80 != 0 {
        return Err(Broken);
    }
    Ok(match length {
        126 => match rest {
            [high, low, ..] => Some((*first, 4, usize::from(u16::from_be_bytes([*high, *low])))),
            _ => None,
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => Some((*first, 10, usize::try_from(u64::from_be_bytes(*length)).map_err(|_| Broken)?)),
            None => None,
        },
        short => Some((*first, 2, usize::from(*short))),
    })
}

/// Appends a client's frame: masked with zero, which is a mask.
pub fn say(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    assert!(payload.len() < 126, "the generator says nothing long");
    out.extend_from_slice(&[0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..126 => frame.push(short as u8),
            middle @ 126..65536 => {
                frame.push(126);
                frame.extend_from_slice(&(middle as u16).to_be_bytes());
            }
            long => {
                frame.push(127);
                frame.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn every_split_point_gives_the_same_frames() {
        let payloads = [vec![], vec![b'a'; 125], vec![b'b'; 126], vec![b'c'; 300], vec![b'd'; 65_536]];
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| server_frame(0x81, payload)).collect();
        // Every cut within the small ones and the large one's header; a sample of its payload.
        let cuts = (0..600).chain((600..stream.len()).step_by(997)).chain([stream.len()]);
        for cut in cuts {
            let mut seen = Vec::new();
            let mut kept = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                kept.extend_from_slice(part);
                let mut frames = Frames::new(&kept);
                while let Some(frame) = frames.next().unwrap() {
                    assert_eq!((frame.opcode, frame.last), (TEXT, true));
                    seen.push(frame.payload.to_vec());
                }
                let taken = frames.taken();
                kept.drain(..taken);
            }
            assert_eq!((seen.as_slice(), kept.len()), (&payloads[..], 0), "cut at {cut}");
        }
    }

    #[test]
    fn headers() {
        type Outcome<'a> = Result<Option<Frame<'a>>, Broken>;
        // (bytes, what comes of them)
        let frame = |opcode, last, payload| Ok(Some(Frame { opcode, last, payload }));
        let rows: [(&[u8], Outcome); 9] = [
            (b"", Ok(None)),
            (b"\x81", Ok(None)),
            (b"\x81\x02a", Ok(None)),
            (b"\x81\x02ab", frame(TEXT, true, b"ab")),
            (b"\x02\x01a", frame(BINARY, false, b"a")),
            (b"\x89\x00", frame(PING, true, b"")),
            (b"\x81\x7e\x00", Ok(None)),
            (b"\x81\x82", Err(Broken)),
            (b"\xc1\x02", Err(Broken)),
        ];
        for (bytes, expected) in rows {
            assert_eq!(Frames::new(bytes).next(), expected, "{bytes:?}");
        }
        // A length beyond all memory is an incomplete frame, not an overflow.
        assert_eq!(Frames::new(b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff").next(), Ok(None));
    }

    #[test]
    fn own_frames_are_masked_with_zero() {
        let mut out = Vec::new();
        say(TEXT, b"40", &mut out);
        assert_eq!(out, b"\x81\x82\0\0\0\x0040");
    }
}
