//! Drawing on one SVG page, in CSS pixels, and turning it into a PNG.
//!
//! The SVG is the only drawing; the PNG is made from it, so that the two never differ. Text is
//! measured and rasterised with an embedded font: no font needs to be installed.

use std::sync::{Arc, OnceLock};

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use resvg::{tiny_skia, usvg};

use super::theme::{self, Tone};

/// Drawing units per CSS pixel. plotters draws on whole units; finer ones make smooth curves.
const UNITS: f64 = 2.0;
/// plotters asks for a line height where SVG wants an em.
const LINE_PER_EM: f64 = 1.24;
/// Plotters' name for the embedded font, and the generic family in the SVG.
const FAMILY: &str = "sans-serif";
/// How much wider than the embedded font a browser's own may run.
const BROWSER_WIDTH: f64 = 1.1;
/// What a browser is told, best first.
const FAMILY_CSS: &str = "system-ui,-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif";

/// Where a text stands, seen from its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Begins there.
    Start,
    /// Is centred there.
    Middle,
    /// Ends there.
    End,
}

/// How a text looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Font {
    /// Size in CSS pixels.
    pub(crate) px: f64,
    /// Colour.
    pub(crate) tone: Tone,
    /// Bold?
    pub(crate) bold: bool,
}

impl Font {
    /// A regular font.
    pub(crate) const fn new(px: f64, tone: Tone) -> Self {
        Self { px, tone, bold: false }
    }

    /// The same in bold.
    pub(crate) const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    /// Distance of two lines in CSS pixels.
    pub(crate) fn line_px(self) -> f64 {
        (self.px * 1.35).round()
    }

    fn style(self) -> FontStyle {
        if self.bold { FontStyle::Bold } else { FontStyle::Normal }
    }

    /// Width of a text in CSS pixels, with room for fonts of browsers that run wider.
    pub(crate) fn width(self, text: &str) -> f64 {
        register_fonts();
        let desc = FontDesc::new(FontFamily::SansSerif, self.px * UNITS * LINE_PER_EM, self.style());
        let units = desc.box_size(text).map_or(text.len() as f64 * self.px, |(w, _)| f64::from(w));
        units / UNITS * BROWSER_WIDTH
    }

    /// Breaks a text into lines of at most `width_px` where it has spaces.
    pub(crate) fn wrap(self, text: &str, width_px: f64) -> Vec<String> {
        text.split('\n').flat_map(|line| self.wrap_line(line, width_px)).collect()
    }

    fn wrap_line(self, text: &str, width_px: f64) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split(' ') {
            match lines.last_mut() {
                Some(line) if self.width(&format!("{line} {word}")) <= width_px => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines
    }
}

/// Shapes of the points of a series, so that colour is not the only difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    /// A disc.
    Circle,
    /// A square.
    Square,
    /// A triangle.
    Triangle,
    /// A square on its corner.
    Diamond,
}

/// How a line looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stroke {
    /// Colour.
    pub(crate) tone: Tone,
    /// Width in CSS pixels.
    pub(crate) px: f64,
    /// Length of dash and gap in CSS pixels; `None` is solid.
    pub(crate) dash: Option<(f64, f64)>,
    /// 1 is opaque.
    pub(crate) alpha: f64,
}

impl Stroke {
    /// Solid and opaque.
    pub(crate) const fn solid(tone: Tone, px: f64) -> Self {
        Self { tone, px, dash: None, alpha: 1.0 }
    }

    fn style(self) -> ShapeStyle {
        self.tone.rgb().mix(self.alpha).stroke_width(units(self.px).unsigned_abs())
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Errors of the drawing library, as text.
pub(crate) type DrawResult = Result<(), String>;

/// One page.
pub(crate) struct Canvas<'a> {
    area: Area<'a>,
}

impl Canvas<'_> {
    /// Draws a page of that many CSS pixels and returns it as SVG with `title` and `desc` for
    /// screen readers.
    pub(crate) fn svg(
        (width, height): (f64, f64),
        title: &str,
        desc: &str,
        draw: impl FnOnce(&Canvas<'_>) -> DrawResult,
    ) -> Result<String, String> {
        register_fonts();
        let mut svg = String::new();
        let size = (units(width).unsigned_abs(), units(height).unsigned_abs());
        {
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            area.fill(&theme::PAPER.rgb()).map_err(text)?;
            let canvas = Canvas { area };
            draw(&canvas)?;
            canvas.area.present().map_err(text)?;
        }
        Ok(dress(&svg, size, (width, height), title, desc))
    }

    /// A line through points.
    pub(crate) fn line(&self, points: &[(f64, f64)], stroke: Stroke) -> DrawResult {
        let Some(dash) = stroke.dash else {
            let path: Vec<(i32, i32)> = points.iter().map(|&p| at(p)).collect();
            return self.area.draw(&PathElement::new(path, stroke.style())).map_err(text);
        };
        for piece in dashes(points, dash) {
            let path: Vec<(i32, i32)> = piece.into_iter().map(at).collect();
            self.area.draw(&PathElement::new(path, stroke.style())).map_err(text)?;
        }
        Ok(())
    }

    /// A filled rectangle between two corners.
    pub(crate) fn rect(&self, a: (f64, f64), b: (f64, f64), tone: Tone, alpha: f64) -> DrawResult {
        let style = tone.rgb().mix(alpha).filled();
        self.area.draw(&Rectangle::new([at(a), at(b)], style)).map_err(text)
    }

    /// A point of a series, `radius` in CSS pixels, with a rim of paper so that points that lie
    /// on each other can be told apart.
    pub(crate) fn marker(&self, at_px: (f64, f64), radius: f64, marker: Marker, tone: Tone) -> DrawResult {
        self.shape(at_px, radius + 1.0, marker, theme::PAPER)?;
        self.shape(at_px, radius, marker, tone)
    }

    fn shape(&self, (x, y): (f64, f64), r: f64, marker: Marker, tone: Tone) -> DrawResult {
        let style = tone.rgb().filled();
        let corners: Vec<(f64, f64)> = match marker {
            Marker::Circle => {
                let circle = Circle::new(at((x, y)), units(r), style);
                return self.area.draw(&circle).map_err(text);
            }
            Marker::Square => {
                let h = r * 0.9;
                vec![(x - h, y - h), (x + h, y - h), (x + h, y + h), (x - h, y + h)]
            }
            Marker::Triangle => {
                vec![(x, y - r * 1.25), (x + r * 1.15, y + r * 0.9), (x - r * 1.15, y + r * 0.9)]
            }
            Marker::Diamond => {
                let h = r * 1.3;
                vec![(x, y - h), (x + h, y), (x, y + h), (x - h, y)]
            }
        };
        let corners: Vec<(i32, i32)> = corners.into_iter().map(at).collect();
        self.area.draw(&Polygon::new(corners, style)).map_err(text)
    }

    /// One line of text whose middle (vertically) is at the point.
    pub(crate) fn text(&self, at_px: (f64, f64), words: &str, font: Font, align: Align) -> DrawResult {
        self.put(at_px, words, font, align, FontTransform::None)
    }

    /// A line of text that begins at the point, on a plate that hides lines behind it.
    pub(crate) fn plate(&self, (x, y): (f64, f64), words: &str, font: Font) -> DrawResult {
        let (width, half) = (font.width(words), font.line_px() / 2.0);
        self.rect((x - 2.0, y - half), (x + width, y + half), theme::PAPER, 0.85)?;
        self.text((x, y), words, font, Align::Start)
    }

    /// One line of text in the middle of the point, turned to be read from below upwards.
    pub(crate) fn text_up(&self, at_px: (f64, f64), words: &str, font: Font) -> DrawResult {
        self.put(at_px, words, font, Align::Middle, FontTransform::Rotate270)
    }

    /// Lines of text below `top`; returns where they end.
    pub(crate) fn paragraph(&self, (x, top): (f64, f64), width: f64, words: &str, font: Font) -> Result<f64, String> {
        let mut y = top;
        for line in font.wrap(words, width) {
            self.text((x, y + font.line_px() / 2.0), &line, font, Align::Start)?;
            y += font.line_px();
        }
        Ok(y)
    }

    fn put(&self, at_px: (f64, f64), words: &str, font: Font, align: Align, turn: FontTransform) -> DrawResult {
        let h_pos = match align {
            Align::Start => HPos::Left,
            Align::Middle => HPos::Center,
            Align::End => HPos::Right,
        };
        let desc = FontDesc::new(FontFamily::SansSerif, font.px * UNITS * LINE_PER_EM, font.style());
        let colour = font.tone.rgb();
        let style = TextStyle::from(desc.transform(turn)).color(&colour).pos(Pos::new(h_pos, VPos::Center));
        self.area.draw(&Text::new(words.to_owned(), at(at_px), style)).map_err(text)
    }
}

/// Cuts a path into dashes.
fn dashes(points: &[(f64, f64)], (dash, gap): (f64, f64)) -> Vec<Vec<(f64, f64)>> {
    let mut pieces = Vec::new();
    let mut piece: Vec<(f64, f64)> = points.first().copied().into_iter().collect();
    let (mut is_on, mut left) = (true, dash);
    for pair in points.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        loop {
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            if length <= left {
                left -= length;
                if is_on {
                    piece.push(to);
                }
                break;
            }
            let share = left / length;
            from = (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share);
            if is_on {
                piece.push(from);
                pieces.push(std::mem::take(&mut piece));
            } else {
                piece = vec![from];
            }
            is_on = !is_on;
            left = if is_on { dash } else { gap };
        }
    }
    if piece.len() > 1 {
        pieces.push(piece);
    }
    pieces
}

/// Gives the SVG a view box instead of a fixed size, its dark colours, and words for screen
/// readers.
fn dress(svg: &str, size: (u32, u32), px: (f64, f64), title: &str, desc: &str) -> String {
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    let body = body.replace("font-family=\"sans-serif\"", &format!("font-family=\"{FAMILY_CSS}\""));
    let (title, desc) = (escape(title), escape(desc));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" width=\"{}\" height=\"{}\" \
         role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n<desc>{desc}</desc>\n\
         <style>{}</style>{body}",
        size.0,
        size.1,
        px.0,
        px.1,
        theme::dark_css(),
    )
}

/// Escapes text for XML and HTML.
pub(crate) fn escape(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Rasterises an SVG made by [`Canvas::svg`] at two pixels per CSS pixel.
pub(crate) fn png(svg: &str) -> Result<Vec<u8>, String> {
    let options = usvg::Options { fontdb: Arc::clone(font_database()), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).map_err(text)?;
    let scale = UNITS as f32;
    let size = tree.size().to_int_size().scale_by(scale).ok_or("an empty picture")?;
    let mut pixels = tiny_skia::Pixmap::new(size.width(), size.height()).ok_or("an empty picture")?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixels.as_mut());
    pixels.encode_png().map_err(text)
}

fn font_database() -> &'static Arc<usvg::fontdb::Database> {
    static FONTS: OnceLock<Arc<usvg::fontdb::Database>> = OnceLock::new();
    FONTS.get_or_init(|| {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(dejavu::sans_condensed::regular().to_vec());
        fonts.load_font_data(dejavu::sans_condensed::bold().to_vec());
        let family = fonts.faces().next().map(|face| face.families[0].0.clone());
        fonts.set_sans_serif_family(family.unwrap_or_default());
        Arc::new(fonts)
    })
}

/// Gives plotters the font to measure with; it can only fail on bytes that are no font.
fn register_fonts() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let _ = plotters::style::register_font(FAMILY, FontStyle::Normal, dejavu::sans_condensed::regular());
        let _ = plotters::style::register_font(FAMILY, FontStyle::Bold, dejavu::sans_condensed::bold());
    });
}

fn units(px: f64) -> i32 {
    (px * UNITS).round() as i32
}

fn at((x, y): (f64, f64)) -> (i32, i32) {
    (units(x), units(y))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_cover_the_path_and_leave_gaps() {
        let pieces = dashes(&[(0.0, 0.0), (10.0, 0.0)], (3.0, 2.0));
        assert_eq!(pieces, vec![vec![(0.0, 0.0), (3.0, 0.0)], vec![(5.0, 0.0), (8.0, 0.0)]]);
    }

    #[test]
    fn text_is_wrapped_at_spaces_and_loses_nothing() {
        let font = Font::new(12.0, theme::INK);
        let lines = font.wrap("a sentence that is longer than one line may be", 80.0);
        assert!(lines.len() > 2);
        assert!(lines.iter().all(|line| font.width(line) <= 80.0));
        assert_eq!(lines.join(" "), "a sentence that is longer than one line may be");
    }

    #[test]
    fn a_page_becomes_svg_with_words_and_a_png_without_installed_fonts() {
        let svg = Canvas::svg((80.0, 40.0), "A & B", "what it shows", |canvas| {
            canvas.text((40.0, 20.0), "Walrus", Font::new(12.0, theme::INK), Align::Middle)
        })
        .expect("a drawing");
        assert!(svg.contains("<title>A &amp; B</title>") && svg.contains("prefers-color-scheme"));
        let png = png(&svg).expect("a picture");
        let blank = Canvas::svg((80.0, 40.0), "A", "b", |_| Ok(())).expect("a drawing");
        assert_ne!(png, super::png(&blank).expect("a picture"), "the text must be visible");
    }
}
