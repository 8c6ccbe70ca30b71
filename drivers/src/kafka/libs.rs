//! Java, Maven, and the jars of the broker.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::process::io_error;
use crate::{DriverError, Tools};

/// Version of Kafka that `drivers/kafka/pom.xml` names.
pub const KAFKA_VERSION: &str = "4.4.0";

/// Oldest Java that the broker runs on.
const JAVA_MAJOR_MIN: u32 = 17;

/// Broker and Java client tell only what goes wrong.
pub(super) const QUIET_FLAG: &str = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";

/// The build file rides in the binary, so that a copied binary finds it too.
const POM: &str = include_str!("../../kafka/pom.xml");

/// Where the jars are kept unless the caller says otherwise: outside of any checkout, so that a
/// clean build does not fetch 43 MB again.
pub fn default_libs_dir() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    home.join(".cache/walrus").join(format!("kafka-libs-{KAFKA_VERSION}"))
}

/// Resolves the broker's jars into `dir` with Maven, unless they are there. All or nothing: an
/// interrupted download leaves no half-filled directory.
///
/// # Errors
/// [`DriverError::Unavailable`] names what is missing (Maven, Java, the network) and the remedy.
pub fn ensure_libs(dir: &Path) -> Result<(), DriverError> {
    ensure_libs_with(dir, &search_path())
}

fn ensure_libs_with(dir: &Path, path: &OsStr) -> Result<(), DriverError> {
    if has_jars(dir) {
        return Ok(());
    }
    let maven = maven(path)?;
    java_in(path)?;
    let parent = dir.parent().unwrap_or(Path::new("."));
    let work = parent.join(format!(".kafka-libs-{}.partial", std::process::id()));
    std::fs::create_dir_all(&work).map_err(|source| io_error(&format!("creating {}", work.display()), source))?;
    let resolved = resolve(&maven, &work).and_then(|jars| move_into_place(&jars, dir));
    let _ = std::fs::remove_dir_all(&work);
    resolved
}

/// Runs Maven on a copy of the build file and returns the directory with the jars.
fn resolve(maven: &Path, work: &Path) -> Result<PathBuf, DriverError> {
    let pom = work.join("pom.xml");
    let jars = work.join("jars");
    std::fs::write(&pom, POM).map_err(|source| io_error("writing pom.xml", source))?;
    let mut command = Command::new(maven);
    command.args(["-q", "-B", "-f"]).arg(&pom).arg("dependency:copy-dependencies");
    command.arg(format!("-DoutputDirectory={}", jars.display()));
    let output = run(&mut command)?;
    if !output.status.success() || !has_jars(&jars) {
        return Err(DriverError::Unavailable {
            cause: format!("Maven could not resolve Kafka {KAFKA_VERSION}: {}", last_lines(&output)),
            remedy: "check the network (or Maven's mirror in ~/.m2/settings.xml) and try again".into(),
        });
    }
    Ok(jars)
}

/// Another process may have been faster; then its result is as good.
fn move_into_place(jars: &Path, dir: &Path) -> Result<(), DriverError> {
    let _ = std::fs::remove_dir(dir); // Only if it is empty.
    match std::fs::rename(jars, dir) {
        Err(source) if !has_jars(dir) => Err(io_error(&format!("moving the jars to {}", dir.display()), source)),
        _ => Ok(()),
    }
}

fn has_jars(dir: &Path) -> bool {
    dir.join(format!("kafka_2.13-{KAFKA_VERSION}.jar")).is_file()
}

/// Can a broker run here? Java must be there, and the jars or a Maven to get them.
pub(super) fn check(tools: &Tools) -> Result<(), DriverError> {
    java()?;
    if has_jars(&libs_dir(tools)) {
        return Ok(());
    }
    maven(&search_path()).map(drop)
}

/// The Java client's worker is compiled as it starts: a runtime without compiler is not enough.
pub(super) fn check_compiler() -> Result<(), DriverError> {
    let output = run(Command::new(java()?).arg("--list-modules"))?;
    if String::from_utf8_lossy(&output.stdout).contains("jdk.compiler") {
        return Ok(());
    }
    Err(DriverError::Unavailable {
        cause: "Kafka's Java client needs a JDK, and this Java has no compiler".into(),
        remedy: "install it: `make setup`, or `sudo apt-get install -y openjdk-17-jdk-headless`".into(),
    })
}

/// The class path of the broker; fetches the jars at the first use.
pub(super) fn class_path(tools: &Tools) -> Result<OsString, DriverError> {
    let dir = libs_dir(tools);
    ensure_libs(&dir)?;
    Ok(dir.join("*").into_os_string())
}

fn libs_dir(tools: &Tools) -> PathBuf {
    tools.kafka_libs.clone().unwrap_or_else(default_libs_dir)
}

/// `Apache Kafka 4.4.0 on Java 17.0.15`.
pub(super) fn broker_version() -> String {
    let java = java().and_then(|program| java_version(&program));
    format!("Apache Kafka {KAFKA_VERSION} on Java {}", java.unwrap_or_else(|_| "(none)".into()))
}

/// The Java program, new enough for the broker.
pub(super) fn java() -> Result<PathBuf, DriverError> {
    if let Some(home) = std::env::var_os("JAVA_HOME") {
        let program = Path::new(&home).join("bin/java");
        if program.is_file() {
            return new_enough(program);
        }
    }
    java_in(&search_path())
}

fn java_in(path: &OsStr) -> Result<PathBuf, DriverError> {
    let program = find_program("java", path).ok_or_else(|| DriverError::Unavailable {
        cause: "Kafka's broker needs Java, and there is none on the PATH".into(),
        remedy: "install one: `make setup`, or `sudo apt-get install -y openjdk-17-jdk-headless`".into(),
    })?;
    new_enough(program)
}

fn new_enough(program: PathBuf) -> Result<PathBuf, DriverError> {
    let version = java_version(&program)?;
    let major = version.split(['.', '-', '+']).next().and_then(|text| text.parse::<u32>().ok());
    if major.is_some_and(|major| major >= JAVA_MAJOR_MIN) {
        return Ok(program);
    }
    Err(DriverError::Unavailable {
        cause: format!("Kafka's broker needs Java {JAVA_MAJOR_MIN}, {} is {version}", program.display()),
        remedy: "install a newer one: `sudo apt-get install -y openjdk-17-jdk-headless`".into(),
    })
}

/// The version between quotes in the first line of `java -version`.
fn java_version(program: &Path) -> Result<String, DriverError> {
    let output = run(Command::new(program).arg("-version"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let version = text.split('"').nth(1).unwrap_or("unknown");
    Ok(version.to_owned())
}

fn maven(path: &OsStr) -> Result<PathBuf, DriverError> {
    find_program("mvn", path).ok_or_else(|| DriverError::Unavailable {
        cause: "Kafka's jars are not here, and there is no Maven to fetch them".into(),
        remedy: "install it: `make setup`, or `sudo apt-get install -y maven`".into(),
    })
}

fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

fn find_program(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|dir| dir.join(name)).find(|program| program.is_file())
}

fn run(command: &mut Command) -> Result<Output, DriverError> {
    let what = format!("running {}", command.get_program().to_string_lossy());
    command.output().map_err(|source| io_error(&what, source))
}

/// The end of what a failed program said, stdout first (Maven writes its errors there), without
/// the frames of Java's stack traces.
pub(super) fn last_lines(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let says_something = |line: &&str| !line.trim().is_empty() && !line.starts_with("\tat ");
    let lines: Vec<&str> = text.lines().filter(says_something).collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_file_names_the_same_version() {
        assert!(POM.contains(&format!("<version>{KAFKA_VERSION}</version>")));
    }

    #[test]
    fn without_java_or_maven_the_remedy_is_named() {
        let java = java_in(OsStr::new("")).unwrap_err();
        assert!(matches!(&java, DriverError::Unavailable { remedy, .. } if remedy.contains("openjdk")), "{java}");

        let dir = tempfile::tempdir().unwrap();
        let maven = ensure_libs_with(&dir.path().join("libs"), OsStr::new("")).unwrap_err();
        assert!(matches!(&maven, DriverError::Unavailable { remedy, .. } if remedy.contains("maven")), "{maven}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn an_old_java_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("java");
        std::fs::write(&program, "#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = java_in(dir.path().as_os_str()).unwrap_err().to_string();
        assert!(error.contains("11.0.2") && error.contains("openjdk-17"), "{error}");
    }

    #[test]
    fn jars_that_are_there_need_no_maven() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(format!("kafka_2.13-{KAFKA_VERSION}.jar")), "").unwrap();
        ensure_libs_with(dir.path(), OsStr::new("")).unwrap();
    }
}
