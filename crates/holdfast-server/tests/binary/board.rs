//! The demo's board in a real terminal, as a person uses it: keys in, the screen out.

use std::process::{Command, Output};

use rustix::process::Signal;
use tokio::sync::Mutex;

use crate::{HOLDFAST, is_running, signal, wait_for};

/// One board at a time: each has three members.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A terminal of its own, in a server of its own; both end when it is dropped.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs a shell command in a terminal of 120 by 40. `None`, with a line about it, when there is no tmux.
    #[expect(clippy::print_stderr, reason = "what a test skips it says")]
    fn start(name: &str, command: &str) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            eprintln!("skipped: the demo's board in a terminal: there is no tmux");
            return None;
        }
        let terminal = Self { socket: format!("holdfast-{name}-{}", std::process::id()) };
        // Without the user's settings; and the screen stays when the command ends.
        let session = ["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "40", command];
        terminal.tmux(&[&session[..], &[";", "set-option", "-g", "remain-on-exit", "on"]].concat());
        Some(terminal)
    }

    fn tmux(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } =
            Command::new("tmux").args(["-L", &self.socket]).args(args).output().unwrap();
        assert!(status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    async fn shows(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        wait_for(what, || {
            let screen = self.screen();
            if is_there(&screen) { Ok(screen) } else { Err(screen) }
        })
        .await
    }

    /// Waits until all three members answer.
    async fn shows_all_up(&self) -> String {
        self.shows("all three up, and a leader", |screen| {
            screen.contains("3/3 up") && screen.contains(" leads ")
        })
        .await
    }

    /// The members' processes, once all three are up and shown: a screen may be looked at while it is drawn.
    async fn pids(&self) -> Vec<u32> {
        let is_whole = |screen: &str| screen.contains("3/3 up") && pids(screen).len() == 3;
        pids(&self.shows("three processes", is_whole).await)
    }

    /// Waits until a member's first row says this.
    async fn shows_of(&self, member: &str, text: &str) {
        let is_there = |screen: &str| row(screen, member).is_some_and(|row| row.contains(text));
        self.shows(&format!("{member}: {text}"), is_there).await;
    }

    /// The process of the demo, which the terminal's shell has started.
    fn demo_pid(&self) -> u32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        children.split_whitespace().next().unwrap_or(shell).parse().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Fails only when the server has ended already.
        drop(Command::new("tmux").args(["-L", &self.socket, "kill-server"]).output());
    }
}

/// A member's row in the first table, selected or not.
fn row<'a>(screen: &'a str, member: &str) -> Option<&'a str> {
    screen.lines().find(|line| line.trim_start_matches([' ', '▸']).starts_with(&format!("{member} ")))
}

/// The last column but one of the first table.
fn snapshot(screen: &str, member: &str) -> Option<u64> {
    row(screen, member)?.split_whitespace().rev().nth(1)?.parse().ok()
}

/// The last column of the second table.
fn pids(screen: &str) -> Vec<u32> {
    let rows = screen.lines().skip_while(|line| !line.contains("dispatcher")).skip(1).take(3);
    rows.filter_map(|row| row.split_whitespace().last()?.parse().ok()).collect()
}

async fn wait_until_gone(pids: &[u32]) {
    wait_for("the end of all members", || {
        let left: Vec<_> = pids.iter().filter(|pid| is_running(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are left")) }
    })
    .await;
}

#[tokio::test]
async fn a_person_torments_the_members_and_leaves() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(terminal) = Terminal::start("keys", &format!("{HOLDFAST} demo --rate 20; true")) else { return };
    terminal.shows_all_up().await;
    terminal.press("Down");
    terminal.shows("n2 is selected", |screen| screen.contains("▸n2")).await;
    terminal.press("k");
    terminal.shows_of("n2", "ended").await;
    terminal.press("r");
    terminal.shows_all_up().await;
    terminal.press("p");
    terminal.shows_of("n2", "paused").await;
    terminal.press("p");
    terminal.shows_all_up().await;
    terminal.press("d");
    terminal.shows("a snapshot of n2", |screen| snapshot(screen, "n2").is_some_and(|index| index > 0)).await;
    terminal.press("t");
    terminal.shows("no traffic", |screen| screen.contains("traffic off")).await;
    terminal.press("?");
    terminal.shows("help", |screen| screen.contains("SIGKILL, as a crash")).await;
    terminal.press("x");
    terminal.shows("no help", |screen| !screen.contains("SIGKILL, as a crash")).await;
    terminal.tmux(&["resize-window", "-x", "80", "-y", "24"]);
    let is_small = |screen: &str| screen.lines().nth(23).is_some_and(|line| line.contains("q quit"));
    terminal.shows("the board on a smaller terminal", is_small).await;
    let pids = terminal.pids().await;
    terminal.press("q");
    terminal.shows("the end", |screen| screen.contains("nothing is left behind")).await;
    wait_until_gone(&pids).await;
}

#[tokio::test]
async fn a_signal_gives_the_terminal_back() {
    let _one = ONE_AT_A_TIME.lock().await;
    let command = format!("stty -a; {HOLDFAST} demo --rate 0; echo status $?; stty -a; echo back again");
    let Some(terminal) = Terminal::start("term", &command) else { return };
    let pids = terminal.pids().await;
    signal(terminal.demo_pid(), Signal::TERM);
    let screen = terminal.shows("the shell", |screen| screen.contains("back again")).await;
    wait_until_gone(&pids).await;
    let (before, after) = screen.split_once("status 0").unwrap_or_else(|| panic!("{screen}"));
    for mode in ["icanon", "echo", "isig"] {
        let has = |text: &str| text.split_whitespace().any(|word| word == mode);
        assert!(has(before) && has(after), "{mode}, before and after:\n{screen}");
    }
}

/// A member that is stopped cannot see that its demo is gone; the system wakes it up and hangs up.
#[tokio::test]
async fn no_member_outlives_a_killed_demo_not_even_a_paused_one() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(terminal) = Terminal::start("kill", &format!("{HOLDFAST} demo --rate 0; true")) else { return };
    let pids = terminal.pids().await;
    terminal.press("p");
    terminal.shows_of("n1", "paused").await;
    signal(terminal.demo_pid(), Signal::KILL);
    wait_until_gone(&pids).await;
}
