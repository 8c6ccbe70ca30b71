//! Splits a line of the shell into words, with the quotes of a POSIX shell.

/// A quote that was never closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenQuote(pub(crate) char);

/// `a 'b c' "d \" e" f\ g` → `a`, `b c`, `d " e`, `f g`. Inside `'…'` nothing is special; inside
/// `"…"` a backslash escapes only `"` and `\`. There are no variables and no wildcards.
pub(crate) fn split(line: &str) -> Result<Vec<String>, OpenQuote> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            '\'' => single(&mut chars, word.get_or_insert_default())?,
            '"' => double(&mut chars, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(chars.next().unwrap_or('\\')),
            space if space.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn single(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), OpenQuote> {
    for char in chars {
        match char {
            '\'' => return Ok(()),
            other => word.push(other),
        }
    }
    Err(OpenQuote('\''))
}

fn double(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), OpenQuote> {
    while let Some(char) = chars.next() {
        match char {
            '"' => return Ok(()),
            '\\' => match chars.next() {
                Some(escaped @ ('"' | '\\')) => word.push(escaped),
                Some(other) => word.extend(['\\', other]),
                None => break,
            },
            other => word.push(other),
        }
    }
    Err(OpenQuote('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_quotes() {
        let words = |line| split(line).expect("closed quotes");
        assert_eq!(words(r#"PUT logs "hello world""#), ["PUT", "logs", "hello world"]);
        assert_eq!(words(r#" a  'b "c"' d\ e "f \" \n" "#), ["a", r#"b "c""#, "d e", r#"f " \n"#]);
        assert_eq!(words(r#"it"'"s '' """#), ["it's", "", ""]);
        assert_eq!(words("tail\\"), ["tail\\"]);
        assert!(words("  ").is_empty());
        assert_eq!(split("a 'b"), Err(OpenQuote('\'')));
        assert_eq!(split("a \"b\\"), Err(OpenQuote('"')));
    }
}
