//! Who is in which room, and what the members get for one read of a publisher. Does not know sockets: a member is a
//! number.

use crate::floor::wire::{self, Dialect};

/// Members of one room that speak one dialect.
#[derive(Debug, Default)]
pub struct Group {
    /// Their numbers.
    pub members: Vec<u32>,
    /// The last batch that a send to them is in.
    pub batch: u64,
    /// Where this read's frames are joined, if they are.
    piece: Option<u32>,
}

/// Bytes that every member of a group gets.
#[derive(Debug, Default)]
pub struct Piece {
    /// The group's number.
    pub group: u32,
    /// One frame, or several if they are joined.
    pub bytes: Vec<u8>,
}

/// Rooms `r0`, `r1` and so on.
#[derive(Debug)]
pub struct Rooms {
    /// By [`group_number`].
    pub groups: Vec<Group>,
    /// The first `used` are of this read; the others keep their memory for later.
    pieces: Vec<Piece>,
    used: usize,
    joined: bool,
}

/// The number of the group of a room's members with that dialect.
pub fn group_number(room: usize, dialect: Dialect) -> u32 {
    (room * Dialect::ALL.len() + dialect as usize) as u32
}

impl Rooms {
    /// No members yet. `joined`: the frames of one read are one piece for each group.
    pub fn new(joined: bool) -> Rooms {
        Rooms { groups: Vec::new(), pieces: Vec::new(), used: 0, joined }
    }

    /// Makes `member` one of the group.
    pub fn join(&mut self, group: u32, member: u32) {
        let index = group as usize;
        if self.groups.len() <= index {
            self.groups.resize_with(index + 1, Group::default);
        }
        self.groups[index].members.push(member);
    }

    /// Takes `member` out of the group.
    pub fn leave(&mut self, group: u32, member: u32) {
        let Some(group) = self.groups.get_mut(group as usize) else { return };
        if let Some(at) = group.members.iter().position(|other| *other == member) {
            group.members.swap_remove(at);
        }
    }

    /// A new read begins: the pieces of the one before are gone.
    pub fn begin(&mut self) {
        for piece in &mut self.pieces[..self.used] {
            self.groups[piece.group as usize].piece = None;
            piece.bytes.clear();
        }
        self.used = 0;
    }

    /// Makes the frames of an event: one for each dialect that somebody in the room speaks.
    pub fn publish(&mut self, room: usize, data: &[u8]) {
        for dialect in Dialect::ALL {
            let number = group_number(room, dialect);
            let Some(group) = self.groups.get_mut(number as usize).filter(|group| !group.members.is_empty()) else {
                continue;
            };
            let piece = group.piece.filter(|_| self.joined).unwrap_or(self.used as u32);
            if piece as usize == self.used {
                group.piece = Some(piece);
                if self.pieces.len() == self.used {
                    self.pieces.push(Piece::default());
                }
                self.pieces[self.used].group = number;
                self.used += 1;
            }
            wire::append_event(dialect, data, &mut self.pieces[piece as usize].bytes);
        }
    }

    /// What goes out for this read, in order, and to whom.
    pub fn outgoing(&mut self) -> (&[Piece], &mut [Group]) {
        (&self.pieces[..self.used], &mut self.groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(rooms: &mut Rooms) -> Vec<(u32, String)> {
        let text = |piece: &Piece| String::from_utf8_lossy(&piece.bytes[2..]).replace("\u{fffd}", "|");
        rooms.outgoing().0.iter().map(|piece| (piece.group, text(piece))).collect()
    }

    #[test]
    fn each_event_is_a_piece_or_each_group_is() {
        for joined in [false, true] {
            let mut rooms = Rooms::new(joined);
            for (room, dialect, member) in [(0, Dialect::Raw, 5), (0, Dialect::Raw, 6), (3, Dialect::SocketIo, 7)] {
                rooms.join(group_number(room, dialect), member);
            }
            for _ in 0..2 {
                rooms.begin();
                for (room, data) in [(0, "1"), (3, "2"), (1, "nobody"), (0, "3"), (9, "nobody")] {
                    rooms.publish(room, data.as_bytes());
                }
                let event = |data| format!(r#"{{"type":"e","data":{data}}}"#);
                let wanted = if joined {
                    vec![(0, format!("{}|\u{15}{}", event(1), event(3))), (7, r#"42["e",2]"#.to_owned())]
                } else {
                    vec![(0, event(1)), (7, r#"42["e",2]"#.to_owned()), (0, event(3))]
                };
                assert_eq!(pieces(&mut rooms), wanted, "joined: {joined}");
            }
            assert_eq!(rooms.groups[0].members, [5, 6]);
            rooms.leave(0, 5);
            rooms.leave(0, 6);
            rooms.begin();
            rooms.publish(0, b"4");
            assert_eq!(pieces(&mut rooms), []);
        }
    }
}
