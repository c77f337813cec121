//! What an answer shows, as one list of attributes: each with its value, its schema, and its description in the document, which is
//! its comment.

/// A kind of object in answers: `of` makes one, `shape` describes all of them.
macro_rules! answer {
    ($(#[$doc:meta])* $vis:vis $name:ident($($from:ident: $of:ty),*) {
        $($(#[doc = $what:literal])+ $key:literal: $value:expr => $shape:expr,)*
    }) => {
        $(#[$doc])*
        $vis struct $name;

        impl $name {
            $vis fn of($($from: $of),*) -> serde_json::Value {
                serde_json::json!({ $($key: $value),* })
            }

            $vis fn shape() -> $crate::api::openapi::schema::Record {
                $crate::api::openapi::schema::Record::new()$(.must($key, concat!($($what),+).trim_start(), $shape))*
            }
        }
    };
}

pub(super) use answer;
