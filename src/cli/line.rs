//! Keys flow in, an edited line and where to draw it flow out.

use console::{Key, measure_text_width};

/// A line that is being edited. One that comes from the history may hold line ends.
#[derive(Debug, Default)]
pub(super) struct Line {
    text: String,
    /// In bytes, between two characters.
    cursor: usize,
}

/// What a key asks of whoever owns the terminal.
#[derive(Debug, PartialEq)]
pub(super) enum Press {
    /// The line has changed, or the cursor.
    Edited,
    /// The line is done.
    Enter,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D on an empty line.
    End,
    /// Tab.
    Complete,
    /// The entry of the history before this one.
    Older,
    /// The entry of the history after this one.
    Newer,
    /// Ctrl-L.
    Clear,
    /// Nothing.
    Ignored,
}

impl Line {
    /// What has been typed.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The cursor's place in it, in bytes.
    pub(super) fn cursor(&self) -> usize {
        self.cursor
    }

    /// Another text, with the cursor at its end.
    pub(super) fn replace(&mut self, text: &str) {
        self.text = text.into();
        self.cursor = self.text.len();
    }

    /// Does what `key` does: those of readline's that people have in their fingers.
    pub(super) fn press(&mut self, key: &Key) -> Press {
        match key {
            Key::Enter => return Press::Enter,
            Key::CtrlC => return Press::Interrupt,
            Key::Tab => return Press::Complete,
            Key::ArrowUp | Key::Char('\x10') => return Press::Older,
            Key::ArrowDown | Key::Char('\x0e') => return Press::Newer,
            Key::Char('\x0c') => return Press::Clear,
            Key::Char('\x04') if self.text.is_empty() => return Press::End,
            Key::ArrowLeft | Key::Char('\x02') => self.cursor = self.before(),
            Key::ArrowRight | Key::Char('\x06') => self.cursor = self.after(),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = self.text.len(),
            Key::Backspace => self.delete(self.before(), self.cursor),
            Key::Del | Key::Char('\x04') => self.delete(self.cursor, self.after()),
            Key::Char('\x0b') => self.text.truncate(self.cursor),
            Key::Char('\x15') => self.delete(0, self.cursor),
            Key::Char('\x17') => self.delete(self.word(), self.cursor),
            Key::Char(c) if !c.is_control() => {
                self.text.insert(self.cursor, *c);
                self.cursor += c.len_utf8();
            }
            _ => return Press::Ignored,
        }
        Press::Edited
    }

    /// Puts in place of what lies between `start` and the cursor the longest text that all `candidates` begin with. Gives
    /// back the candidates if that says nothing new.
    pub(super) fn complete(&mut self, start: usize, candidates: Vec<String>) -> Vec<String> {
        let Some(first) = candidates.first() else { return vec![] };
        let common = candidates.iter().fold(first.as_str(), |common, candidate| {
            let same = common.char_indices().zip(candidate.chars()).find(|((_, a), b)| a != b);
            &common[..same.map_or(common.len().min(candidate.len()), |((at, _), _)| at)]
        });
        let only = candidates.len() == 1;
        if !only && common.len() <= self.cursor - start {
            return candidates;
        }
        self.text.replace_range(start..self.cursor, common);
        self.cursor = start + common.len();
        vec![]
    }

    fn delete(&mut self, from: usize, to: usize) {
        self.text.replace_range(from..to, "");
        self.cursor = from;
    }

    fn before(&self) -> usize {
        self.text[..self.cursor].char_indices().next_back().map_or(0, |(at, _)| at)
    }

    fn after(&self) -> usize {
        self.text[self.cursor..].chars().next().map_or(self.cursor, |c| self.cursor + c.len_utf8())
    }

    /// Where the word before the cursor begins.
    fn word(&self) -> usize {
        let rest = self.text[..self.cursor].trim_end();
        rest.char_indices().rfind(|(_, c)| c.is_whitespace()).map_or(0, |(at, c)| at + c.len_utf8())
    }
}

/// Row and column at which a terminal of `columns` columns is after it has printed `text` from its first column on.
pub(super) fn end_of(text: &str, columns: usize) -> (usize, usize) {
    let (mut row, mut column) = (0, 0);
    for c in text.chars() {
        if c == '\n' {
            (row, column) = (row + 1, 0);
            continue;
        }
        let width = measure_text_width(c.encode_utf8(&mut [0; 4]));
        if column + width > columns {
            (row, column) = (row + 1, 0);
        }
        column += width;
    }
    // A full row leaves the cursor where the next character goes.
    if column >= columns.max(1) { (row + 1, 0) } else { (row, column) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line after `text` and `keys`, with `|` for the cursor.
    fn typed(text: &str, keys: &[Key]) -> String {
        let mut line = Line::default();
        for key in text.chars().map(Key::Char).chain(keys.iter().cloned()) {
            assert_eq!(line.press(&key), Press::Edited, "{key:?}");
        }
        format!("{}|{}", &line.text()[..line.cursor()], &line.text()[line.cursor()..])
    }

    #[test]
    fn keys_edit_the_line() {
        for (text, keys, expected) in [
            ("abc", &[][..], "abc|"),
            ("abc", &[Key::ArrowLeft, Key::Backspace, Key::Char('é')], "aé|c"),
            ("aé", &[Key::ArrowLeft, Key::Del], "a|"),
            ("abc", &[Key::Home, Key::Backspace, Key::ArrowLeft, Key::Del, Key::ArrowRight], "b|c"),
            ("abc", &[Key::Home, Key::End, Key::ArrowRight, Key::Del], "abc|"),
            ("abc", &[Key::ArrowLeft, Key::Char('\x0b')], "ab|"),
            ("abc", &[Key::ArrowLeft, Key::Char('\x15')], "|c"),
            ("SELECT one two ", &[Key::Char('\x17')], "SELECT one |"),
            ("SELECT", &[Key::Char('\x17'), Key::Char('\x17')], "|"),
            ("abc", &[Key::Home, Key::Char('\x04')], "|bc"),
        ] {
            assert_eq!(typed(text, keys), expected, "{text} {keys:?}");
        }
    }

    #[test]
    fn other_keys_are_left_to_the_terminal() {
        let mut line = Line::default();
        for (key, press) in [
            (Key::Enter, Press::Enter),
            (Key::CtrlC, Press::Interrupt),
            (Key::Char('\x04'), Press::End),
            (Key::Tab, Press::Complete),
            (Key::ArrowUp, Press::Older),
            (Key::ArrowDown, Press::Newer),
            (Key::Char('\x0c'), Press::Clear),
            (Key::Char('\x07'), Press::Ignored),
            (Key::UnknownEscSeq(vec!['[']), Press::Ignored),
        ] {
            assert_eq!(line.press(&key), press, "{key:?}");
        }
        assert_eq!(line.text(), "");
    }

    #[test]
    fn a_completion_goes_as_far_as_all_candidates_agree_and_then_shows_them() {
        let mut line = Line::default();
        let candidates = || vec!["seed => ".to_string(), "selection => ".into(), "sender => ".into()];
        line.replace("distill(t, s");
        assert_eq!(line.complete(11, candidates()), [""; 0]);
        assert_eq!(line.text(), "distill(t, se");
        assert_eq!(line.complete(11, candidates()), candidates());
        assert_eq!(line.complete(11, vec!["seed => ".into()]), [""; 0]);
        assert_eq!((line.text(), line.cursor()), ("distill(t, seed => ", 19));
        assert_eq!(line.complete(19, vec![]), [""; 0]);
        // One candidate replaces the word even where it is written otherwise.
        line.replace("FROM up");
        line.complete(5, vec!["\"Upper\"".into()]);
        assert_eq!(line.text(), "FROM \"Upper\"");
    }

    #[test]
    fn a_long_line_wraps_where_the_terminal_wraps_it() {
        for (text, end) in
            [("", (0, 0)), ("abc", (0, 3)), ("abcd", (1, 0)), ("abcde", (1, 1)), ("ab\nc", (1, 1)), ("abc字", (1, 2))]
        {
            assert_eq!(end_of(text, 4), end, "{text}");
        }
    }
}
