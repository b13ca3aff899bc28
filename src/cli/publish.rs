//! `roomcast pub`: one event, or one for each line of standard input, to the publishers' port. A plain blocking client
//! of the line protocol (`proto::line`); knows nothing else of the server.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::args::Publish;
use super::say;
use crate::config;
use crate::proto::json;

/// A server that takes longer to accept or to answer is not going to.
const PATIENCE: Duration = Duration::from_secs(10);

/// Publishes what `publish` says, with the lines of `input` if it says `-`.
///
/// # Errors
/// The server cannot be reached, or an event was not taken. With `-`, the others are published all the same.
pub(super) fn run(
    publish: &Publish,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), String> {
    let mut scratch = json::Scratch::default();
    if publish.json() != "-" {
        check_json(publish.json().as_bytes(), &mut scratch)?;
        return Connection::open(publish)?.publish(publish, publish.json(), out).map(|_| ());
    }
    let mut connection = Connection::open(publish)?;
    let (mut line, mut number, mut failed) = (Vec::new(), 0u64, 0u64);
    while read_line(input, &mut line)? {
        number += 1;
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let published = check_json(text, &mut scratch).and_then(|text| connection.publish(publish, text, out));
        match published {
            Ok(true) => {}
            Ok(false) => break,
            Err(message) if connection.broken => return Err(format!("line {number}: {message}")),
            Err(message) => {
                failed += 1;
                say(err, &format!("roomcast: line {number}: {message}"))?;
            }
        }
    }
    if failed == 0 { Ok(()) } else { Err(format!("{failed} of {number} lines were not published")) }
}

fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> Result<bool, String> {
    line.clear();
    let read = input.read_until(b'\n', line).map_err(|error| format!("cannot read standard input: {error}"))?;
    Ok(read > 0)
}

fn check_json<'a>(text: &'a [u8], scratch: &mut json::Scratch) -> Result<&'a str, String> {
    json::validate(text, scratch).map_err(|error| {
        let shown = String::from_utf8_lossy(text);
        format!("not valid JSON: {error}: {shown:.60}; a text needs its quotes, as in '\"hello\"'")
    })
}

struct Connection {
    address: String,
    stream: BufReader<TcpStream>,
    /// True once no further event can be published on it.
    broken: bool,
    sent: u64,
}

impl Connection {
    fn open(publish: &Publish) -> Result<Connection, String> {
        let address = &publish.ingest;
        let token = publish.token_file.as_deref().map(config::read_token).transpose()?;
        let connected = reach(address).and_then(|stream| {
            // The receipt comes when the clients' time is over, at the latest.
            let patience = PATIENCE + Duration::from_millis(publish.ack_timeout_ms.unwrap_or(0));
            stream.set_read_timeout(Some(patience)).map(|()| stream)
        });
        let stream = connected.map_err(|error| {
            format!(
                "cannot reach publishers' port {address}: {error}; is `roomcast serve` running? It says at its start \
                 which ports it has; name its ingest port with --ingest"
            )
        })?;
        let mut connection =
            Connection { address: address.clone(), stream: BufReader::new(stream), broken: false, sent: 0 };
        if let Some(token) = token {
            let mut line = "{\"id\":0,\"op\":\"auth\",\"token\":".to_owned();
            json::escape_into(&mut line, token.reveal());
            line.push_str("}\n");
            connection.exchange(&line)?;
        }
        Ok(connection)
    }

    /// Sends one event and says what became of it; false when nobody reads `out` any more.
    fn publish(&mut self, publish: &Publish, data: &str, out: &mut dyn Write) -> Result<bool, String> {
        self.sent += 1;
        let receipt = self.exchange(&event_line(self.sent, publish, data))?;
        say(out, &receipt)
    }

    /// Sends a line and returns what its receipt says.
    fn exchange(&mut self, line: &str) -> Result<String, String> {
        let mut answer = String::new();
        let exchanged =
            self.stream.get_mut().write_all(line.as_bytes()).and_then(|()| self.stream.read_line(&mut answer));
        let address = &self.address;
        match exchanged {
            Ok(0) => {
                self.broken = true;
                Err(format!("{address} closed the connection without a receipt; the event may be lost"))
            }
            Ok(_) => match read_receipt(&answer) {
                Some(receipt) => receipt,
                None => {
                    self.broken = true;
                    Err(format!("{address} is not a publishers' port: it answers {:.60?}; see --ingest", answer.trim()))
                }
            },
            Err(error) => {
                self.broken = true;
                Err(format!("no receipt from {address}: {error}; the event may be lost"))
            }
        }
    }
}

/// Connects to `unix:PATH` or HOST:PORT.
fn reach(address: &str) -> std::io::Result<TcpStream> {
    let Some(path) = address.strip_prefix("unix:") else { return connect(address) };
    // A stream socket is read and written in one way, whatever its family.
    let stream = TcpStream::from(OwnedFd::from(UnixStream::connect(path)?));
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Connects to the first address of `address`, HOST:PORT, that answers.
pub(super) fn connect(address: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The line for one event; `data` is valid JSON.
fn event_line(id: u64, publish: &Publish, data: &str) -> String {
    let mut line = format!("{{\"id\":{id},\"ns\":");
    json::escape_into(&mut line, &publish.ns);
    if let Some(room) = publish.room() {
        line.push_str(",\"room\":");
        json::escape_into(&mut line, room);
    }
    line.push_str(",\"event\":");
    json::escape_into(&mut line, publish.event());
    line.push_str(",\"data\":");
    // In valid JSON a line break is space between values: in a string it would be escaped.
    line.push_str(&data.replace(['\n', '\r'], " "));
    if let Some(timeout_ms) = publish.ack_timeout_ms {
        line.push_str(&format!(",\"ack\":{{\"timeout_ms\":{timeout_ms}}}"));
    }
    line.push_str("}\n");
    line
}

/// What the server said, or why it refused the line; `None` if that is no receipt.
fn read_receipt(answer: &str) -> Option<Result<String, String>> {
    let answer = json::validate(answer.as_bytes(), &mut json::Scratch::default()).ok()?;
    match json::get(answer, "ok")? {
        "true" => {
            let Some(offset) = json::get(answer, "offset") else { return Some(Ok("ok".to_owned())) };
            let ack = json::get(answer, "ack").map(|ack| format!(" ack {ack}")).unwrap_or_default();
            Some(Ok(format!("ok offset {offset}{ack}")))
        }
        "false" => Some(Err(json::unescape(json::get(answer, "error")?)?.into_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::{Arguments, Command};
    use super::*;
    use std::net::TcpListener;

    /// Runs `pub` with `words` against a server that answers each line by `answer`; returns what the server got, the
    /// outputs and the result.
    fn against(
        words: &[&str],
        input: &str,
        answer: impl Fn(usize, &str) -> String + Send + 'static,
    ) -> (Vec<String>, String, String, Result<(), String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let answered = lines.map_while(Result::ok).enumerate().map(|(index, line)| {
                // A client that has seen enough may be gone.
                let _ = stream.write_all(answer(index + 1, &line).as_bytes());
                line
            });
            answered.collect()
        });
        let words = ["roomcast", "pub", "--ingest", &address].into_iter().chain(words.iter().copied()).map(Into::into);
        let Command::Pub(publish) = Arguments::read(words).unwrap().command else { panic!() };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = run(&publish, &mut input.as_bytes(), &mut out, &mut err);
        if result.as_ref().is_err_and(|error| error.starts_with("not valid")) {
            drop(TcpStream::connect(&address));
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (server.join().unwrap(), text(out), text(err), result.map_err(|e| e.replace(&address, "ADDR")))
    }

    fn receipt(id: usize, _: &str) -> String {
        format!("{{\"id\":{id},\"ok\":true,\"offset\":{}}}\n", id + 16)
    }

    #[test]
    fn an_event_is_a_line_and_its_receipt_is_printed() {
        for (words, line) in [
            (&["r", "e", "{\"a\": 1.0}"][..], r#"{"id":1,"ns":"/","room":"r","event":"e","data":{"a": 1.0}}"#),
            (&["q\"r", "é", "[\n1,\r\n2]"], r#"{"id":1,"ns":"/","room":"q\"r","event":"é","data":[ 1,  2]}"#),
            (&["--ns", "/x", "--all", "e", "null"], r#"{"id":1,"ns":"/x","event":"e","data":null}"#),
            (&["", "e", "-5"], r#"{"id":1,"ns":"/","event":"e","data":-5}"#),
        ] {
            let (lines, out, err, result) = against(words, "", receipt);
            assert_eq!((lines, out.as_str(), err.as_str(), result), (vec![line.into()], "ok offset 17\n", "", Ok(())));
        }
    }

    #[test]
    fn clients_answers_are_printed() {
        let ack = r#"{"asked":2,"answers":[{"sid":"AAAAAAAAAAAAAAAAAAAA","args":[1,"two"]}],"missing":1}"#;
        let answer = move |id, _: &str| format!("{{\"id\":{id},\"ok\":true,\"offset\":17,\"ack\":{ack}}}\n");
        let (lines, out, _, result) = against(&["--ack-timeout-ms", "2000", "r", "e", "1"], "", answer);
        assert_eq!(lines, [r#"{"id":1,"ns":"/","room":"r","event":"e","data":1,"ack":{"timeout_ms":2000}}"#]);
        assert_eq!((out, result), (format!("ok offset 17 ack {ack}\n"), Ok(())));
    }

    #[test]
    fn the_lines_that_it_sends_are_understood() {
        let words = ["--ack-timeout-ms", "1", "r", "e", "-"];
        let (lines, ..) = against(&words, "1\n \n\"x\"\r\n{}", receipt);
        assert_eq!(lines.len(), 3);
        for line in lines {
            crate::proto::line::Parser::new().parse(line.as_bytes(), &Default::default()).unwrap();
        }
    }

    #[test]
    fn bad_lines_of_the_input_do_not_stop_the_others() {
        let answer = |id, line: &str| match line.contains("bad") {
            true => format!("{{\"id\":{id},\"ok\":false,\"error\":\"no \\\"bad\\\"\",\"line\":{id}}}\n"),
            false => receipt(id, line),
        };
        let (lines, out, err, result) = against(&["r", "e", "-"], "1\nx\n\"bad\"\n2\n", answer);
        assert_eq!((lines.len(), out.as_str()), (3, "ok offset 17\nok offset 19\n"));
        assert!(
            err.starts_with("roomcast: line 2: not valid JSON: ") && err.ends_with("roomcast: line 3: no \"bad\"\n")
        );
        assert_eq!(result, Err("2 of 4 lines were not published".to_owned()));
    }

    #[test]
    fn failures_are_told() {
        let (lines, _, _, result) = against(&["r", "e", "{a}"], "", receipt);
        assert!(lines.is_empty() && result.unwrap_err().starts_with("not valid JSON: "));
        let refused = |_, _: &str| "{\"id\":null,\"ok\":false,\"error\":\"too long\",\"line\":1}\n".to_owned();
        assert_eq!(against(&["r", "e", "1"], "", refused).3, Err("too long".to_owned()));
        let http = |_, _: &str| "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned();
        let error = "ADDR is not a publishers' port: it answers \"HTTP/1.1 400 Bad Request\"; see --ingest";
        assert_eq!(against(&["r", "e", "1"], "", http).3, Err(error.to_owned()));
        assert!(against(&["r", "e", "-"], "1\n2\n", http).3.unwrap_err().starts_with("line 1: ADDR is not"));
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let words = ["roomcast", "pub", "--ingest", &address, "r", "e", "1"].map(Into::into);
        let Command::Pub(publish) = Arguments::read(words).unwrap().command else { panic!() };
        let error = Connection::open(&publish).err().unwrap();
        assert!(error.starts_with(&format!("cannot reach publishers' port {address}: Connection refused")), "{error}");
        assert!(error.contains("is `roomcast serve` running?"), "{error}");
    }
}
