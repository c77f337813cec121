//! The terminal of `top`: keys, signals, and that it is left as it was found.

use std::io;
use std::time::Duration;

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt;
use nicd_client::Client;
use ratatui::backend::TestBackend;
use ratatui::{DefaultTerminal, Terminal};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::draw::{Look, Picture, draw, height, room};
use super::reading::Reader;
use super::table::Order;
use crate::ctl::failure::Failure;

/// The terminal in raw mode on its second screen. A panic's message is printed once it is restored, as when this is dropped.
#[derive(Debug)]
pub struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Standard output is not one.
    pub fn open() -> io::Result<Self> {
        // What was changed before the error is changed back.
        ratatui::try_init().map(Self).inspect_err(|_| drop(ratatui::try_restore()))
    }

    /// Draws, and says how many rows there is room for.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn show(&mut self, picture: &Picture, look: &Look) -> io::Result<usize> {
        let drawn = self.0.draw(|frame| draw(frame, picture, look))?;
        Ok(room(drawn.area.height))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // After a panic its hook has restored it; twice would put the cursor over the message.
        if !std::thread::panicking() {
            // The terminal may be gone.
            let _ = ratatui::try_restore();
        }
    }
}

/// The signals that end it.
#[derive(Debug)]
struct Signals([(u8, Signal); 4]);

impl Signals {
    fn catch() -> io::Result<Self> {
        let of = |kind: SignalKind| Ok::<_, io::Error>((u8::try_from(kind.as_raw_value()).unwrap_or_default(), signal(kind)?));
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()];
        let [term, int, hup, quit] = kinds.map(of);
        Ok(Self([term?, int?, hup?, quit?]))
    }

    /// The number of the next one.
    async fn next(&mut self) -> u8 {
        let [(term, terminate), (int, interrupt), (hup, hangup), (quit, quitted)] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => *term,
            _ = interrupt.recv() => *int,
            _ = hangup.recv() => *hup,
            _ = quitted.recv() => *quit,
        }
    }
}

/// Shows the table until it is quit.
///
/// # Errors
/// The daemon cannot be reached at the beginning, the terminal is gone, or a signal came.
pub async fn run(client: &Client, order: Order, interval: Duration) -> Result<(), Failure> {
    let mut reader = Reader::open(client).await?;
    let mut signals = Signals::catch().map_err(Failure::Runtime)?;
    let (shown, mut pictures) = watch::channel(reader.picture());
    let (sees, seen) = watch::channel(Vec::new());
    let mut screen = Screen::open().map_err(Failure::Output)?;
    let mut keys = EventStream::new();
    let (mut picture, mut look) = (reader.picture(), Look { order, ..Look::default() });
    let work = reader.work(interval, seen, &shown);
    let mut work = std::pin::pin!(work);
    loop {
        let room = screen.show(&picture, &look).map_err(Failure::Output)?;
        let rows = picture.rows.sorted(look.order);
        sees.send_replace(rows.iter().skip(look.first).take(room).map(|row| row.id.clone()).collect());
        let rows = rows.len();
        tokio::select! {
            () = &mut work => {}
            number = signals.next() => return Err(Failure::Signal(number)),
            _ = pictures.changed(), if !look.paused => picture = pictures.borrow_and_update().clone(),
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if press(key, &mut look, rows, room) == After::Quit {
                        return Ok(());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Failure::Output(error)),
                None => return Err(Failure::Output(io::ErrorKind::UnexpectedEof.into())),
            },
        }
        look.scroll(0, picture.rows.number(), room);
    }
}

/// What follows a key.
#[derive(Debug, PartialEq, Eq)]
enum After {
    GoOn,
    Quit,
}

fn press(key: KeyEvent, look: &mut Look, rows: usize, room: usize) -> After {
    let page = isize::try_from(room).unwrap_or(isize::MAX);
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return After::Quit,
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => return After::Quit,
        KeyCode::Char('s') => look.sort_next(),
        KeyCode::Char('r') => look.order.reversed = !look.order.reversed,
        KeyCode::Char(' ' | 'p') => look.paused = !look.paused,
        KeyCode::Up | KeyCode::Char('k') => look.scroll(-1, rows, room),
        KeyCode::Down | KeyCode::Char('j') => look.scroll(1, rows, room),
        KeyCode::PageUp => look.scroll(-page, rows, room),
        KeyCode::PageDown => look.scroll(page, rows, room),
        KeyCode::Home | KeyCode::Char('g') => look.scroll(isize::MIN, rows, room),
        KeyCode::End | KeyCode::Char('G') => look.scroll(isize::MAX, rows, room),
        _ => {}
    }
    After::GoOn
}

/// One frame: what happened in an interval.
///
/// # Errors
/// The daemon cannot be reached.
pub async fn once(client: &Client, interval: Duration) -> Result<Picture, Failure> {
    let mut reader = Reader::open(client).await?;
    reader.count_all().await?;
    tokio::time::sleep(interval).await;
    reader.count_all().await?;
    Ok(reader.picture())
}

/// A frame with all rows as text, so many characters to a line.
///
/// # Errors
/// None that occurs: drawing into memory does not fail.
pub fn text(picture: &Picture, order: Order, width: u16) -> Result<String, Failure> {
    let look = Look { order, ..Look::default() };
    let size = TestBackend::new(width, height(picture.rows.number()));
    let drawn = Terminal::new(size).and_then(|mut terminal| {
        terminal.draw(|frame| draw(frame, picture, &look))?;
        Ok(terminal.backend().buffer().clone())
    });
    let buffer = drawn.map_err(|never| Failure::Output(io::Error::other(never)))?;
    let lines = buffer.content().chunks(usize::from(width));
    // The last line names keys, which need a terminal.
    let lines = lines.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned() + "\n");
    let mut lines: Vec<String> = lines.collect();
    lines.pop();
    Ok(lines.concat())
}
