//! Requests of the HTTP API in the shapes of existing systems, whose backends stay as they are:
//! `{"success":…,"data":…}` with a time of day, as Node programs write them. Does not know connections, nor who may
//! ask.

use super::api::Api;
use super::reply::{Reply, quoted};
use crate::proto::json::{self, Kind as JsonKind};
use std::time::{SystemTime, UNIX_EPOCH};

/// What an alias does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// POST `{"event","data","room"}`: sends an event to a room, or to the namespace if none is named.
    SocketEvent,
    /// GET: how many sockets are in the namespace, and which rooms have members.
    SocketStats,
    /// GET: whether the server is well.
    Health,
}

/// A path and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Where it is.
    pub path: Box<str>,
    /// What it does.
    pub kind: Kind,
    /// The namespace that it is about.
    pub namespace: Box<str>,
}

/// Rooms that [`Kind::SocketStats`] names at most, in pages of 1000.
const PAGES_MAX: usize = 10;

impl Alias {
    /// The method of its requests.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self.kind {
            Kind::SocketEvent => "POST",
            Kind::SocketStats | Kind::Health => "GET",
        }
    }

    /// Sends the event that `body` names.
    pub async fn send_event(&self, api: &Api, body: &[u8]) -> Reply {
        let mut scratch = json::Scratch::default();
        let text = match json::validate(body, &mut scratch) {
            Ok(text) if json::kind(text) == JsonKind::Object => text,
            Ok(_) => return failure(400, "the body must be an object with event, data and room"),
            Err(error) => return failure(400, &format!("the body is not valid JSON: {error}")),
        };
        let Some(event) = json::get(text, "event") else { return failure(400, "event is required") };
        let room = json::get(text, "room");
        // What JavaScript takes for no room.
        let addressed = room.filter(|room| !matches!(*room, "null" | "\"\""));
        // An argument that is not there is null in Socket.IO's JSON.
        let data = json::get(text, "data").unwrap_or("null");
        let mut rest = format!("\"op\":\"emit\",\"ns\":{},\"event\":{event},\"data\":{data}", quoted(&self.namespace));
        if let Some(room) = addressed {
            rest.push_str(&format!(",\"room\":{room}"));
        }
        rest.push('}');
        match api.tell(rest.replace(['\n', '\r'], " ")).await {
            Ok(told) if told.starts_with("\"ok\":true") => {
                let room = room.map_or_else(String::new, |room| format!(",\"room\":{room}"));
                success(&format!("\"message\":\"Event emitted\",\"event\":{event}{room}"))
            }
            Ok(told) => dressed(Reply::json(400, format!("{{{told}"))),
            Err(reply) => dressed(reply),
        }
    }

    /// Counts the namespace's sockets and names its rooms.
    pub async fn stats(&self, api: &Api) -> Reply {
        let namespace = quoted(&self.namespace);
        let told = match api.tell(format!("\"op\":\"stats\",\"ns\":{namespace}}}")).await {
            Ok(told) => format!("{{{told}"),
            Err(reply) => return dressed(reply),
        };
        let stats = json::get(&told, "stats").unwrap_or_default();
        let total = json::get(stats, "ns_sockets").unwrap_or("0");
        let mut names: Vec<String> = Vec::new();
        let mut after = "\"\"".to_owned();
        for _ in 0..PAGES_MAX {
            let line = format!("\"op\":\"rooms\",\"ns\":{namespace},\"limit\":1000,\"after\":{after}}}");
            let told = match api.tell(line).await {
                Ok(told) => format!("{{{told}"),
                Err(reply) => return dressed(reply),
            };
            for room in json::elements(json::get(&told, "rooms").unwrap_or_default()) {
                let is_active = json::get(room, "members").is_some_and(|members| members != "0");
                names.extend(json::get(room, "name").filter(|_| is_active).map(str::to_owned));
            }
            match json::get(&told, "next") {
                Some(next) if next != "null" => after = next.to_owned(),
                _ => break,
            }
        }
        success(&format!("\"totalConnections\":{total},\"activeRooms\":[{}]", names.join(",")))
    }

    /// Tells whether the server is well: `trouble` says why it is not.
    #[must_use]
    pub fn health(&self, service: &str, trouble: Option<&str>) -> Reply {
        match trouble {
            Some(trouble) => failure(503, &format!("the server is {trouble}")),
            None => {
                success(&format!("\"status\":\"healthy\",\"service\":{},\"websocket\":\"enabled\"", quoted(service)))
            }
        }
    }
}

fn success(data: &str) -> Reply {
    let timestamp = iso(SystemTime::now());
    Reply::json(200, format!("{{\"success\":true,\"data\":{{{data},\"timestamp\":\"{timestamp}\"}}}}"))
}

fn failure(status: u16, message: &str) -> Reply {
    dressed(Reply::error(status, message))
}

/// The API's refusal as an alias says it.
#[must_use]
pub fn dressed(reply: Reply) -> Reply {
    let body = match json::get(&reply.body, "error") {
        Some(error) => format!("{{\"success\":false,\"error\":{error}}}"),
        None => return reply,
    };
    Reply { body, ..reply }
}

/// As JavaScript's `toISOString` writes it: `2026-11-20T19:05:19.123Z`.
pub(crate) fn iso(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date_of(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// Year, month and day of the Gregorian calendar, from days since 1970. Years begin in March here, so that a leap day
/// is a year's last.
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_as_javascript_writes_them() {
        // From Node: new Date(ms).toISOString().
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
            (1_795_201_519_123, "2026-11-20T19:05:19.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(iso(UNIX_EPOCH + Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn refusals_change_their_dress() {
        let reply = dressed(Reply::error(413, "too \"long\""));
        assert_eq!((reply.status, &*reply.body), (413, r#"{"success":false,"error":"too \"long\""}"#));
    }
}
