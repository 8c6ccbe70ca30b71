//! The shell: a prompt with history and completion on a terminal, a script reader otherwise.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use clap::error::ErrorKind;
use nu_ansi_term::Style;
use reedline::{
    Color, ColumnarMenu, DefaultHinter, Emacs, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder, Prompt,
    PromptEditMode, PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu, Signal, default_emacs_keybindings,
};
use walrus_engine::protocol::Verb;

use crate::args::{Command, ShellLine};
use crate::commands::{Failure, Session};
use crate::complete::{SETTINGS, ShellCompleter, VerbHighlighter};
use crate::output::paint;
use crate::words;

/// Commands of the shell itself.
pub(crate) const BUILTINS: [(&str, &str); 2] = [("help", "explain the verbs, or one of them"), ("exit", "leave")];

/// Lines that the history keeps.
const HISTORY_LINES: usize = 10_000;

/// What a line asks for.
enum Line {
    Nothing,
    Exit,
    Help(String),
    Run(Command),
    /// The text was printed by the parser's rules, and is no failure (`GET --help`).
    Shown(String),
}

/// Runs the shell until it is left.
pub(crate) fn run(session: &mut Session) -> Result<(), Failure> {
    if io::stdin().is_terminal() && io::stdout().is_terminal() { interactive(session) } else { script(session) }
}

/// Each line of stdin is a command; the first that fails ends it.
fn script(session: &mut Session) -> Result<(), Failure> {
    for (index, line) in io::stdin().lock().lines().enumerate() {
        match run_line(session, &line?) {
            Ok(true) => {}
            Ok(false) => break,
            // Nothing to read is an answer, not an error.
            Err(Failure::NoRecord) => session.output.failure(&Failure::NoRecord),
            Err(failure) => {
                session.output.failure(&failure);
                return Err(Failure::Script { line: index + 1 });
            }
        }
    }
    Ok(())
}

fn interactive(session: &mut Session) -> Result<(), Failure> {
    // The first Ctrl-C ends a command that follows a topic, a second one the shell.
    let shutdown = signal_hook::flag::register_conditional_shutdown(
        signal_hook::consts::SIGINT,
        130,
        Arc::clone(&session.interrupted),
    );
    let flag = signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&session.interrupted));
    shutdown.and(flag)?;
    greet(session)?;
    let mut editor = editor(session)?;
    let prompt = ShellPrompt { addr: session.config.addr.clone() };
    loop {
        let line = match editor.read_line(&prompt) {
            Ok(Signal::Success(line)) => line,
            Ok(Signal::CtrlD) => return Ok(()),
            Ok(_) => continue,
            Err(error) => return Err(Failure::Output(io::Error::other(error.to_string()))),
        };
        session.interrupted.store(false, std::sync::atomic::Ordering::Relaxed);
        match run_line(session, &line) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(failure) => session.output.failure(&failure),
        }
    }
}

/// Says where we are and whether the broker is there.
fn greet(session: &mut Session) -> Result<(), Failure> {
    let hint = "`help` explains the verbs, Tab completes, Ctrl-D leaves.";
    match session.client().and_then(walrus_engine::client::Client::ping) {
        Ok(()) => session.output.note(&format!("Connected to {}. {hint}", session.config.addr))?,
        Err(error) => {
            session.output.failure(&error.into());
            session.output.note(hint)?;
        }
    }
    Ok(())
}

/// Runs one line; `false` ends the shell.
fn run_line(session: &mut Session, line: &str) -> Result<bool, Failure> {
    match parse(line)? {
        Line::Nothing => {}
        Line::Exit => return Ok(false),
        Line::Help(topic) => write!(io::stdout(), "{}", help(&topic, session.output.color_stdout())?)?,
        Line::Shown(text) => write!(io::stdout(), "{text}")?,
        Line::Run(command) => run_command(session, &command)?,
    }
    Ok(true)
}

/// In the shell, `-` is a record like any other: stdin is the keyboard.
fn run_command(session: &mut Session, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Put { topic, payload, file: None } => session.put(topic, payload.join(" ").as_bytes()),
        Command::Append { topic, records } => session.append(topic, records),
        other => session.run(other),
    }
}

fn parse(line: &str) -> Result<Line, Failure> {
    let mut words = words::split(line)
        .map_err(|words::OpenQuote(quote)| Failure::Usage(format!("the quote {quote} is not closed")))?;
    let Some(first) = words.first_mut() else {
        return Ok(Line::Nothing);
    };
    if first.starts_with('#') {
        return Ok(Line::Nothing);
    }
    first.make_ascii_lowercase();
    let verb = first.clone();
    match verb.as_str() {
        "exit" | "quit" => return Ok(Line::Exit),
        "help" | "?" => return Ok(Line::Help(words.get(1).cloned().unwrap_or_default())),
        // Records may start with a hyphen, and an empty payload is a payload.
        "put" | "append" if words.len() > 2 && !words[1].starts_with('-') => {
            words.insert(2, "--".into());
        }
        verb if Verb::from_name(&verb.to_ascii_uppercase()).is_none() => {
            return Err(Failure::Usage(format!("there is no verb `{verb}`; `help` lists them")));
        }
        _ => {}
    }
    match ShellLine::try_parse_from(&words) {
        Ok(line) => Ok(Line::Run(line.command)),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Line::Shown(error.to_string())),
        Err(error) => Err(Failure::Usage(one_line(&error, &verb))),
    }
}

/// The parser's message without its decoration, then the usage as the protocol writes it.
fn one_line(error: &clap::Error, verb: &str) -> String {
    let text = error.to_string();
    let usage = Verb::from_name(&verb.to_ascii_uppercase()).map_or("", Verb::usage);
    if error.kind() == ErrorKind::MissingRequiredArgument {
        return format!("usage: {usage}");
    }
    let first = text.lines().next().unwrap_or("");
    format!("{}; usage: {usage}", first.trim_start_matches("error: "))
}

/// The table of verbs, or one of them.
fn help(topic: &str, color: bool) -> Result<String, Failure> {
    let mut text = String::new();
    let mut row = |name: &str, usage: &str, help: &str| {
        let padding = " ".repeat(41_usize.saturating_sub(usage.chars().count()));
        let usage = usage.replacen(name, &paint(color, "36;1", name), 1);
        let newline = if padding.is_empty() { format!("\n{}", " ".repeat(43)) } else { padding };
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  {usage}{newline}{help}");
    };
    if !topic.is_empty() {
        let verb = Verb::from_name(&topic.to_ascii_uppercase())
            .ok_or_else(|| Failure::Usage(format!("there is no verb `{topic}`; `help` lists them")))?;
        row(verb.name(), usage(verb), verb.help());
        if verb == Verb::Register {
            for (key, help) in SETTINGS {
                row(key, &format!("  {key}"), help);
            }
        }
        return Ok(text);
    }
    for verb in Verb::ALL {
        row(verb.name(), usage(verb), verb.help());
    }
    for (name, help) in BUILTINS {
        row(name, if name == "help" { "help [verb]" } else { name }, help);
    }
    text.push_str("\nQuotes work as in a POSIX shell: PUT logs \"hello world\" stores `hello world`.\n");
    Ok(text)
}

/// What is typed here differs from the protocol where that is not made for typing.
fn usage(verb: Verb) -> &'static str {
    match verb {
        Verb::Append => "APPEND <topic> <record> …",
        Verb::Fetch => "FETCH <topic> [offset [max]] [--follow]",
        verb => verb.usage(),
    }
}

fn editor(session: &Session) -> Result<Reedline, Failure> {
    let mut keys = default_emacs_keybindings();
    keys.add_binding(
        KeyModifiers::NONE,
        KeyCode::Tab,
        ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu("completion".into()), ReedlineEvent::MenuNext]),
    );
    let color = session.output.color_stdout();
    let menu = ColumnarMenu::default().with_name("completion").with_marker("> ").with_columns(4);
    let mut editor = Reedline::create()
        .with_completer(Box::new(ShellCompleter::new(&session.config)))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_ansi_colors(color);
    if color {
        let hint = Style::new().fg(Color::DarkGray);
        editor = editor
            .with_highlighter(Box::new(VerbHighlighter))
            .with_hinter(Box::new(DefaultHinter::default().with_style(hint)));
    }
    match history() {
        Ok(history) => Ok(editor.with_history(Box::new(history))),
        Err(reason) => {
            session.output.note(&format!("the history is not kept: {reason}"))?;
            Ok(editor)
        }
    }
}

/// `$XDG_STATE_HOME/walrus/cli-history`, by default under `~/.local/state`.
fn history() -> Result<FileBackedHistory, String> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".local/state"));
    let dir = state.or_else(home).ok_or("there is no home directory")?.join("walrus");
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    FileBackedHistory::with_file(HISTORY_LINES, dir.join("cli-history")).map_err(|error| error.to_string())
}

/// `walrus 127.0.0.1:9091> `
struct ShellPrompt {
    addr: String,
}

impl Prompt for ShellPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        format!("walrus {}", self.addr).into()
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        "".into()
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        "> ".into()
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        "| ".into()
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        format!("(history: {}) ", search.term).into()
    }

    fn get_prompt_color(&self) -> Color {
        Color::Green
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        match parse(line) {
            Ok(Line::Run(command)) => command,
            _ => panic!("`{line}` is a command"),
        }
    }

    #[test]
    fn lines_are_commands() {
        assert!(matches!(command(r#"PUT logs "hello world""#),
            Command::Put { topic, payload, .. } if topic == "logs" && payload == ["hello world"]));
        assert!(matches!(command("put logs --raw -1"), Command::Put { payload, .. } if payload == ["--raw", "-1"]));
        assert!(matches!(command("put logs ''"), Command::Put { payload, .. } if payload == [""]));
        assert!(matches!(
            command("Fetch logs 5 10 --follow"),
            Command::Fetch { offset, max_records: Some(10), follow: true, .. } if offset == "5"
        ));
        assert!(matches!(parse("  # a comment"), Ok(Line::Nothing)));
        assert!(matches!(parse("exit"), Ok(Line::Exit)));
        assert!(matches!(parse("help put"), Ok(Line::Help(topic)) if topic == "put"));
    }

    #[test]
    fn mistakes_are_explained_in_one_line() {
        let text = |line| match parse(line) {
            Err(failure) => failure.to_string(),
            Ok(_) => panic!("`{line}` is a mistake"),
        };
        assert_eq!(text("hello"), "there is no verb `hello`; `help` lists them");
        assert_eq!(text("PUT logs"), "usage: PUT <topic> <payload>");
        assert_eq!(text("PUT logs 'a"), "the quote ' is not closed");
        assert!(text("GET a b c").ends_with("usage: GET <topic> [group]"), "{}", text("GET a b c"));
    }

    #[test]
    fn help_names_every_verb() {
        let text = help("", false).expect("the table");
        assert!(Verb::ALL.iter().all(|verb| text.contains(verb.name())));
        assert!(help("nothing", false).is_err());
    }
}
