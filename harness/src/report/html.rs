//! Small pieces of HTML: everything that enters them as text leaves them escaped.

use std::fmt::Write as _;

pub(crate) use crate::chart::escape;

/// A cell of a table.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    class: &'static str,
}

impl Cell {
    /// Text, aligned to the left.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), class: "" }
    }

    /// A number, aligned to the right.
    pub fn number(text: impl Into<String>) -> Self {
        Self { text: text.into(), class: "n" }
    }

    /// Text with a class of the style sheet.
    pub fn classed(text: impl Into<String>, class: &'static str) -> Self {
        Self { text: text.into(), class }
    }
}

/// A table in a box that scrolls sideways where the page is narrow, below its caption. The first column names the
/// row; a head that begins with `#` stands over numbers.
pub fn table(class: &str, caption: &str, heads: &[&str], rows: &[Vec<Cell>]) -> String {
    let mut html = format!(
        "<p class=\"small\">{0}</p>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" \
         aria-label=\"{0}\"><table class=\"{class}\"><thead><tr>",
        escape(caption)
    );
    for head in heads {
        let (class, text) = head.strip_prefix('#').map_or(("", *head), |text| ("n", text));
        push(&mut html, format_args!("<th scope=\"col\" class=\"{class}\">{}</th>", escape(text)));
    }
    html.push_str("</tr></thead><tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let (class, text) = (cell.class, escape(&cell.text));
            if i == 0 {
                push(&mut html, format_args!("<th scope=\"row\" class=\"{class}\">{text}</th>"));
            } else {
                push(&mut html, format_args!("<td class=\"{class}\">{text}</td>"));
            }
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// A list of names and values.
pub fn definitions(pairs: &[(String, String)]) -> String {
    let mut html = String::from("<dl>");
    for (name, value) in pairs {
        push(&mut html, format_args!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(value)));
    }
    html.push_str("</dl>\n");
    html
}

/// Appends formatted text.
pub fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = html.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let html = table("", "a<b", &["x"], &[vec![Cell::text("<script>\"")]]);
        assert!(!html.contains("<script>") && html.contains("&lt;script&gt;&quot;"));
    }
}
