//! The query of a request target as names and values. Does not know which names mean something.

use std::borrow::Cow;

/// The names and values of an `application/x-www-form-urlencoded` query (WHATWG URL, section 5.1), in their order. `+`
/// is a space; an incomplete percent-encoding stands for itself; what is not UTF-8 becomes U+FFFD.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode_component(name), decode_component(value))
    })
}

fn decode_component(text: &str) -> Cow<'_, str> {
    let Some(first) = memchr::memchr2(b'+', b'%', text.as_bytes()) else { return Cow::Borrowed(text) };
    let (plain, mut rest) = text.as_bytes().split_at(first);
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(plain);
    while let [byte, tail @ ..] = rest {
        rest = tail;
        out.push(match (byte, tail) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            _ => *byte,
        });
    }
    let lossy = |error: std::string::FromUtf8Error| String::from_utf8_lossy(error.as_bytes()).into_owned();
    Cow::Owned(String::from_utf8(out).unwrap_or_else(lossy))
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn queries() {
        let rows: [(&str, &[(&str, &str)]); 13] = [
            ("", &[]),
            ("&&", &[]),
            ("a", &[("a", "")]),
            ("a=", &[("a", "")]),
            ("=b", &[("", "b")]),
            ("EIO=4&transport=polling", &[("EIO", "4"), ("transport", "polling")]),
            ("a=1&a=2", &[("a", "1"), ("a", "2")]),
            ("a=b=c", &[("a", "b=c")]),
            ("a+b=c+%2B%20d", &[("a b", "c + d")]),
            ("n=%E2%82%AC&n=\u{20ac}", &[("n", "€"), ("n", "€")]),
            ("a=%26%3d", &[("a", "&=")]),
            ("a=%&b=%4&c=%zz&d=%%41", &[("a", "%"), ("b", "%4"), ("c", "%zz"), ("d", "%A")]),
            ("a=%ff%41%00", &[("a", "\u{fffd}A\0")]),
        ];
        for (query, pairs) in rows {
            let is: Vec<_> = query_pairs(query).collect();
            let expected: Vec<(Cow<str>, Cow<str>)> = pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
            assert_eq!(is, expected, "{query}");
        }
        let (name, value) = query_pairs("plain=text").next().unwrap();
        assert!(matches!((name, value), (Cow::Borrowed(_), Cow::Borrowed(_))), "nothing to decode, nothing copied");
    }

    proptest! {
        #[test]
        fn queries_are_read_back(pairs in prop::collection::vec((any::<String>(), any::<String>()), 0..5)) {
            let encode = |text: &str| -> String {
                let byte = |b: u8| match b {
                    b' ' => "+".to_owned(),
                    b'a'..=b'z' | b'0'..=b'9' => char::from(b).to_string(),
                    _ => format!("%{b:02X}"),
                };
                text.bytes().map(byte).collect()
            };
            let query: Vec<_> = pairs.iter().map(|(n, v)| format!("{}={}", encode(n), encode(v))).collect();
            let back: Vec<_> = query_pairs(&query.join("&")).map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
            prop_assert_eq!(back, pairs);
        }

        #[test]
        fn any_query_is_read(query: String) {
            prop_assert!(query_pairs(&query).count() <= query.split('&').count());
        }
    }
}
