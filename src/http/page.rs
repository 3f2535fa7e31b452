//! The page's files, which are in the program.

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Each with its path, type and contents.
const FILES: [(&str, &str, &str); 12] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/ask.js", JS, include_str!("page/ask.js")),
    ("/charts.js", JS, include_str!("page/charts.js")),
    ("/elements.js", JS, include_str!("page/elements.js")),
    ("/keys.js", JS, include_str!("page/keys.js")),
    ("/page.css", CSS, include_str!("page/page.css")),
    ("/page.js", JS, include_str!("page/page.js")),
    ("/redis.js", JS, include_str!("page/redis.js")),
    ("/text.js", JS, include_str!("page/text.js")),
    ("/theme.js", JS, include_str!("page/theme.js")),
    ("/tollgate.js", JS, include_str!("page/tollgate.js")),
    ("/verdict.js", JS, include_str!("page/verdict.js")),
];

/// Type and contents of the file at this path.
pub fn file(path: &str) -> Option<(&'static str, &'static str)> {
    FILES.iter().find(|(other, ..)| *other == path).map(|(_, content_type, contents)| (*content_type, *contents))
}
