//! What an answer shows, as one list of attributes: each with its value, and with what the document says of it.

/// A kind of object in answers: `of` makes one, `shape` describes all of them.
macro_rules! answer {
    ($(#[$doc:meta])* $vis:vis $name:ident($($from:ident: $of:ty),*) { $($key:literal: $value:expr => $shape:expr,)* }) => {
        $(#[$doc])*
        $vis struct $name;

        impl $name {
            $vis fn of($($from: $of),*) -> serde_json::Value {
                serde_json::json!({ $($key: $value),* })
            }

            $vis fn shape() -> $crate::api::openapi::schema::Record {
                $crate::api::openapi::schema::Record::new()$(.must($key, $shape))*
            }
        }
    };
}

pub(super) use answer;
