//! A text, a cursor and the names of tables flow in, what the word at the cursor may become flows out.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

use crate::options::{Kind, SPECS};

/// The words of SQL that are worth completing.
const KEYWORDS: &[&str] = &[
    "ALL",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COLUMNS",
    "COPY",
    "CREATE",
    "CROSS",
    "DEALLOCATE",
    "DEFAULT",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXECUTE",
    "EXISTS",
    "EXPLAIN",
    "EXTERNAL",
    "FALSE",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTO",
    "IS",
    "JOIN",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OPTIONS",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PARTITIONED",
    "PREPARE",
    "RECURSIVE",
    "REPLACE",
    "RESET",
    "RIGHT",
    "SELECT",
    "SET",
    "SHOW",
    "STORED",
    "TABLE",
    "TABLES",
    "THEN",
    "TO",
    "TRUE",
    "UNION",
    "USING",
    "VALUES",
    "VERBOSE",
    "VIEW",
    "WHEN",
    "WHERE",
    "WITH",
];

/// The words that a table's name follows.
const BEFORE_TABLES: &[&str] = &["FROM", "JOIN", "INTO", "TABLE", "DESCRIBE", "LATERAL"];

/// What the word before `cursor`, a position in bytes, may become: where the word starts, and its candidates, sorted.
///
/// Option names inside `distill(...)`, their values after `=>`, settings after `SET`, tables where a table stands, and
/// keywords. Inside quotes and comments there is nothing.
pub(super) fn complete(text: &str, cursor: usize, tables: &[String]) -> (usize, Vec<String>) {
    let Some(before) = text.get(..cursor) else { return (cursor, vec![]) };
    let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).map_or(0, |at| {
        at + before[at..].chars().next().map_or(0, char::len_utf8) // the character before the word stays
    });
    let word = &before[start..];
    let Some(tokens) = tokens(&before[..start]) else { return (start, vec![]) };
    let mut candidates = match place(&tokens) {
        Place::Setting { assigned } => settings(assigned),
        Place::Option { given } => options(&given),
        Place::Value { option } => values(&option),
        Place::Table => tables.iter().cloned().chain([String::from("distill(")]).collect(),
        Place::Source => tables.to_vec(),
        // All words there are would be no help.
        Place::Other if word.is_empty() => vec![],
        Place::Other => keywords(word).chain(tables.iter().cloned()).collect(),
    };
    candidates.retain(|c| starts_with(c, word) && c != word);
    candidates.sort();
    candidates.dedup();
    (start, candidates)
}

/// A table's or schema's name as SQL has it: in double quotes where it has to be.
pub(super) fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty() {
        name.to_string()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// Where in a statement the cursor is.
enum Place {
    /// After `SET`, `RESET` or `SHOW`; only the first assigns.
    Setting { assigned: bool },
    /// An argument of `distill`, after a comma; `given` are the names before it.
    Option { given: Vec<String> },
    /// The value of an argument of `distill`.
    Value { option: String },
    /// The first argument of `distill`.
    Source,
    /// Where a relation stands.
    Table,
    /// Anywhere else.
    Other,
}

/// The tokens of the last statement of `text`, without white space; `None` inside quotes or a comment.
fn tokens(text: &str) -> Option<Vec<Token>> {
    let all = Tokenizer::new(&GenericDialect, text).tokenize().ok()?;
    if let Some(Token::Whitespace(Whitespace::SingleLineComment { comment, .. })) = all.last()
        && !comment.ends_with('\n')
    {
        return None;
    }
    let mut tokens = vec![];
    for token in all {
        match token {
            Token::SemiColon => tokens.clear(),
            Token::Whitespace(_) => {}
            token => tokens.push(token),
        }
    }
    Some(tokens)
}

fn place(tokens: &[Token]) -> Place {
    if let [only] = tokens {
        for (keyword, assigned) in [("SET", true), ("RESET", false), ("SHOW", false)] {
            if is_word(only, keyword) {
                return Place::Setting { assigned };
            }
        }
    }
    if let Some(arguments) = arguments(tokens) {
        let given: Vec<String> = arguments
            .windows(2)
            .filter(|pair| matches!(pair[1], Token::RArrow | Token::Assignment))
            .map(|pair| pair[0].to_string().to_ascii_lowercase())
            .collect();
        match arguments.last() {
            None => return Place::Source,
            Some(Token::Comma) => return Place::Option { given },
            Some(Token::RArrow | Token::Assignment) => {
                return Place::Value { option: given.into_iter().next_back().unwrap_or_default() };
            }
            Some(_) => {}
        }
    }
    match tokens.last() {
        Some(last) if BEFORE_TABLES.iter().any(|keyword| is_word(last, keyword)) => Place::Table,
        _ => Place::Other,
    }
}

/// What is there already of the innermost open parentheses, if they are those of `distill(`; without what inner parentheses
/// and brackets hold.
fn arguments(tokens: &[Token]) -> Option<Vec<&Token>> {
    let mut depth = 0;
    let mut arguments = vec![];
    for (i, token) in tokens.iter().enumerate().rev() {
        match token {
            Token::RParen | Token::RBracket => depth += 1,
            Token::LParen | Token::LBracket if depth > 0 => {
                depth -= 1;
                arguments.push(token); // stands for all that it holds
            }
            Token::LParen => {
                let name = i.checked_sub(1).and_then(|i| tokens.get(i))?;
                arguments.reverse();
                return is_word(name, "distill").then_some(arguments);
            }
            Token::LBracket => return None,
            token if depth == 0 => arguments.push(token),
            _ => {}
        }
    }
    None
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

fn settings(assigned: bool) -> Vec<String> {
    let end = if assigned { " = " } else { "" };
    SPECS.iter().map(|spec| format!("distill.{}{end}", spec.name)).collect()
}

fn options(given: &[String]) -> Vec<String> {
    let new = SPECS.iter().filter(|spec| given.iter().all(|name| name != spec.name));
    new.map(|spec| format!("{} => ", spec.name)).collect()
}

fn values(option: &str) -> Vec<String> {
    match SPECS.iter().find(|spec| spec.name == option).map(|spec| spec.kind) {
        Some(Kind::Choice(choices)) => choices.iter().map(|choice| format!("'{choice}'")).collect(),
        _ => vec![],
    }
}

/// The keywords, in the case in which `word` begins.
fn keywords(word: &str) -> impl Iterator<Item = String> + use<> {
    let lower = word.starts_with(|c: char| c.is_lowercase());
    KEYWORDS.iter().map(move |k| if lower { k.to_ascii_lowercase() } else { (*k).to_string() })
}

fn starts_with(candidate: &str, word: &str) -> bool {
    let candidate = candidate.trim_start_matches('"');
    candidate.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The candidates at the end of `text`.
    fn at_end(text: &str) -> Vec<String> {
        let tables = ["train", "test", "s.days", "\"Upper\""].map(String::from);
        complete(text, text.len(), &tables).1
    }

    #[test]
    fn keywords_follow_the_case_that_was_typed() {
        assert_eq!(at_end("SEL"), ["SELECT"]);
        assert_eq!(at_end("sel"), ["select"]);
        assert_eq!(at_end("SELECT 1; expl"), ["explain"]);
        assert_eq!(at_end("SELECT "), [""; 0]);
    }

    #[test]
    fn the_word_at_the_cursor_is_replaced_whatever_follows() {
        assert_eq!(complete("SELECT * FROM tra WHERE x", 17, &["train".into()]), (14, vec!["train".into()]));
        assert_eq!(complete("é ORD", 6, &[]), (3, vec!["ORDER".into()]));
        assert_eq!(complete("é", 1, &[]), (1, vec![]));
    }

    #[test]
    fn tables_stand_where_a_relation_does() {
        assert_eq!(at_end("SELECT * FROM "), ["\"Upper\"", "distill(", "s.days", "test", "train"]);
        assert_eq!(at_end("SELECT * FROM T"), ["test", "train"]);
        assert_eq!(at_end("SELECT * FROM t JOIN s."), ["s.days"]);
        assert_eq!(at_end("INSERT INTO up"), ["\"Upper\""]);
        assert_eq!(at_end("SELECT * FROM dis"), ["distill("]);
        assert_eq!(at_end("SELECT * FROM distill(tr"), ["train"]);
    }

    #[test]
    fn option_names_are_completed_inside_distill_and_not_offered_twice() {
        assert_eq!(at_end("SELECT * FROM distill(train, ip"), ["ipc => "]);
        assert_eq!(
            at_end("SELECT * FROM distill('a,b', ipc => 1,\n  s"),
            ["seed => ", "sizes => ", "soft_labels => ", "steps => "]
        );
        assert_eq!(
            at_end("SELECT * FROM distill(t, IPC := 2, seed => 1, s"),
            ["sizes => ", "soft_labels => ", "steps => "]
        );
        assert_eq!(at_end("SELECT * FROM distill((SELECT a, b FROM t), classes => ['x', 'y'], ipc"), ["ipc => "]);
        assert_eq!(at_end("SELECT * FROM distill(t, ").len(), SPECS.len());
        // Another call's arguments, and those of a query inside, are none of ours.
        for text in
            ["SELECT f(a, ip", "SELECT * FROM distill((SELECT a, ip", "SELECT * FROM distill(t, ipc => 1) AS d, ip"]
        {
            assert_eq!(at_end(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn the_values_of_a_choice_are_offered_in_quotes() {
        assert_eq!(
            at_end("SELECT * FROM distill(t, method => "),
            ["'auto'", "'characteristic'", "'herding'", "'k_center'", "'k_means'", "'mean'", "'random'", "'ridge'"]
        );
        assert_eq!(at_end("SELECT * FROM distill(t, ipc => "), [""; 0]);
    }

    #[test]
    fn settings_follow_set_and_show() {
        assert_eq!(at_end("SET distill.ip"), ["distill.ipc = "]);
        assert_eq!(at_end("SHOW distill.ip"), ["distill.ipc"]);
        assert_eq!(at_end("set ").len(), SPECS.len());
    }

    #[test]
    fn nothing_is_completed_in_quotes_and_comments() {
        for text in ["SELECT 'SEL", "SELECT \"sel", "SELECT 1 -- SEL", "/* SEL", "SELECT $$ sel"] {
            assert_eq!(at_end(text), [""; 0], "{text}");
        }
        assert_eq!(at_end("-- a comment\nSEL"), ["SELECT"]);
    }

    #[test]
    fn names_are_quoted_where_sql_needs_it() {
        assert_eq!(["t_1", "T", "2t", "a\"b", ""].map(quoted), ["t_1", "\"T\"", "\"2t\"", "\"a\"\"b\"", "\"\""]);
    }
}
