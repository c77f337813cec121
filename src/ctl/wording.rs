//! The daemon's words for those who type commands: it speaks of requests, which they do not make.

/// Each phrase of the daemon about a request, and what is said in its place.
const PHRASES: [(&str, &str); 6] = [
    ("or use ?detach=true", "or delete it with --detach"),
    ("PUT the server again with the path of the new one", "`nicctl server set` with --netns and the new path registers it again"),
    (
        "Multiple possible networks found, use a Network ID to be more specific.",
        "there are several networks: say which with --network",
    ),
    ("requires a subnet in order to attach interfaces; add one first.", "has no subnet: `nicctl subnet create` adds one"),
    ("at once with ?force=true", "at once with --force"),
    (
        "is not possible on the read-only socket; GET and HEAD are. Use nicd.sock.",
        "cannot be done at the socket for reading: use nicd.sock",
    ),
];

/// Words for the methods, where a sentence begins with one.
const METHODS: [(&str, &str); 3] =
    [("POST cannot", "this cannot"), ("PUT cannot", "this cannot"), ("DELETE cannot", "this cannot")];

/// The sentence without words of HTTP.
pub fn of_commands(sentence: &str) -> String {
    PHRASES.iter().chain(&METHODS).fold(sentence.to_owned(), |sentence, (said, meant)| sentence.replace(said, meant))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn speaks_http(text: &str) -> bool {
        let word = |word: &str| text.split(|c: char| !c.is_alphanumeric()).any(|found| found == word);
        ["GET", "HEAD", "POST", "PUT", "DELETE"].into_iter().any(word) || text.contains("?detach=") || text.contains("?force=")
    }

    fn strings(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                strings(&path, found);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let code: Vec<&str> = text.lines().take_while(|line| *line != "#[cfg(test)]").collect();
                let lines = code.iter().filter(|line| !line.trim_start().starts_with("//"));
                found.extend(lines.filter_map(|line| Some(line.split_once('"')?.1.to_owned())));
            }
        }
    }

    #[test]
    fn what_the_service_says_of_requests_is_said_otherwise() {
        let mut said = Vec::new();
        for room in ["inventory", "monitor", "plan", "reconcile", "service"] {
            strings(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room), &mut said);
        }
        assert!(said.len() > 500, "the sources were not found");
        let left: Vec<&String> = said.iter().filter(|text| speaks_http(&of_commands(text))).collect();
        assert!(left.is_empty(), "{left:#?}");
        assert!(said.iter().any(|text| speaks_http(text)), "no message has words of HTTP: this list can go");
        for (phrase, _) in &PHRASES[..5] {
            assert!(said.iter().any(|text| text.contains(phrase)), "no message has this any more: {phrase}");
        }
    }

    #[test]
    fn a_refusal_at_the_socket_for_reading_says_which_to_use() {
        let said = "DELETE is not possible on the read-only socket; GET and HEAD are. Use nicd.sock. (read_only_socket)";
        assert_eq!(of_commands(said), "this cannot be done at the socket for reading: use nicd.sock (read_only_socket)");
    }
}
