//! `[nova]` and `[notify]`: whom nicd tells of ports, as used.

use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::settings::{absolute, number};
use super::{ConfigError, bad, file};

/// `[nova]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NovaSettings {
    /// Whether Nova is told.
    pub send: bool,
    /// Keystone's address, with its version (`/v3`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_url: Option<Url>,
    /// Nova's address; none for the one in Keystone's catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Url>,
    /// The region whose endpoint is taken from the catalog; none for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The interface whose endpoint is taken from the catalog.
    pub interface: String,
    /// The user that nicd is to Keystone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The domain of that user.
    pub user_domain_name: String,
    /// The project that the token is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_name: Option<String>,
    /// The domain of that project.
    pub project_domain_name: String,
    /// The file with the user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The application credential, in place of a user with a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_credential_id: Option<String>,
    /// The file with its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_credential_secret_file: Option<PathBuf>,
    /// The certificates that Keystone's and Nova's are checked against; none for the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// For how many seconds something may wait before health shows a problem.
    pub unreachable_after_s: u32,
}

/// `[notify]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WebhookSettings {
    /// The webhook's address; none for no webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Url>,
    /// The certificates that the webhook's is checked against; none for the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The file with the token that nicd sends (`Authorization: Bearer`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// For how many seconds something may wait before health shows a problem.
    pub unreachable_after_s: u32,
}

/// The address of an HTTP server, and a path there. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    /// Whether it is reached by TLS.
    pub tls: bool,
    /// The host: a name, or an address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// Host and port as in the address.
    pub authority: String,
    /// The path and query, which begin with `/`.
    pub path: String,
}

impl Url {
    /// Reads an address.
    ///
    /// # Errors
    /// It is not `http://` or `https://` with a host, or it has a user or a fragment.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        Self::read_with_port(text, None)
    }

    /// The same with another port for an address that names none.
    pub(super) fn read_with_port(text: &str, port: Option<u16>) -> Result<Self, &'static str> {
        const EXPECTED: &str = "an address such as https://controller.example:8774/v2.1 is expected, without user and password";
        let uri: hyper::Uri = text.parse().map_err(|_| EXPECTED)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(EXPECTED),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(EXPECTED)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || text.contains('#') {
            return Err(EXPECTED);
        }
        let port = authority.port_u16().or(port).unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { text: text.to_owned(), tls, host, port, authority: authority.as_str().to_owned(), path })
    }

    /// The address below this one: `https://host/v2.1` and `servers` give `https://host/v2.1/servers`.
    #[must_use]
    pub fn below(&self, path: &str) -> Self {
        let whole = format!("{}/{path}", self.path.trim_end_matches('/'));
        Self { text: format!("{}/{path}", self.text.trim_end_matches('/')), path: whole, ..self.clone() }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

pub(super) fn nova_as_used(written: file::Nova) -> Result<NovaSettings, ConfigError> {
    let interface = written.interface.unwrap_or_else(|| "public".to_owned());
    if !["public", "internal", "admin"].contains(&interface.as_str()) {
        return Err(bad("nova.interface", interface, "public, internal or admin is expected"));
    }
    let domain = || "Default".to_owned();
    let settings = NovaSettings {
        send: written.send.unwrap_or(false),
        auth_url: url("nova.auth_url", written.auth_url)?,
        endpoint: url("nova.endpoint", written.endpoint)?,
        region: written.region,
        interface,
        username: written.username,
        user_domain_name: written.user_domain_name.unwrap_or_else(domain),
        project_name: written.project_name,
        project_domain_name: written.project_domain_name.unwrap_or_else(domain),
        password_file: path("nova.password_file", written.password_file)?,
        application_credential_id: written.application_credential_id,
        application_credential_secret_file: path(
            "nova.application_credential_secret_file",
            written.application_credential_secret_file,
        )?,
        ca_file: path("nova.ca_file", written.ca_file)?,
        unreachable_after_s: patience("nova.unreachable_after_s", written.unreachable_after_s)?,
    };
    if settings.send {
        complete(&settings)?;
    }
    Ok(settings)
}

/// Checks that nicd knows where Keystone is and who it is there.
fn complete(settings: &NovaSettings) -> Result<(), ConfigError> {
    let missing = |what: &str| bad("nova.send", "true", format!("with it nova.{what} is expected"));
    if settings.auth_url.is_none() {
        return Err(missing("auth_url"));
    }
    let by_password = settings.username.is_some() || settings.password_file.is_some();
    match (&settings.application_credential_id, &settings.application_credential_secret_file) {
        (Some(_), Some(_)) if by_password => {
            let expected = "either a user with a password or an application credential is expected, not both";
            Err(bad(
                "nova.application_credential_id",
                settings.application_credential_id.as_deref().unwrap_or_default(),
                expected,
            ))
        }
        (Some(_), Some(_)) => Ok(()),
        (Some(_), None) => Err(missing("application_credential_secret_file")),
        (None, Some(_)) => Err(missing("application_credential_id")),
        (None, None) if settings.username.is_none() => Err(missing("username or nova.application_credential_id")),
        (None, None) if settings.password_file.is_none() => Err(missing("password_file")),
        (None, None) if settings.project_name.is_none() => Err(missing("project_name")),
        (None, None) => Ok(()),
    }
}

pub(super) fn webhook_as_used(written: file::Notify) -> Result<WebhookSettings, ConfigError> {
    Ok(WebhookSettings {
        url: url("notify.url", written.url)?,
        ca_file: path("notify.ca_file", written.ca_file)?,
        token_file: path("notify.token_file", written.token_file)?,
        unreachable_after_s: patience("notify.unreachable_after_s", written.unreachable_after_s)?,
    })
}

fn url(key: &'static str, written: Option<String>) -> Result<Option<Url>, ConfigError> {
    let shown = |text: &str| if text.contains('@') { "an address with a user".to_owned() } else { text.to_owned() };
    written.map(|text| Url::read(&text).map_err(|expected| bad(key, shown(&text), expected))).transpose()
}

fn path(key: &'static str, written: Option<PathBuf>) -> Result<Option<PathBuf>, ConfigError> {
    written.map(|path| absolute(key, Some(path), "/etc/nicd/file")).transpose()
}

fn patience(key: &'static str, written: Option<file::Whole>) -> Result<u32, ConfigError> {
    number(key, written, 60, 1, 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_and_what_is_below_them() {
        let url = Url::read("https://[2001:db8::1]:8774/v2.1/").unwrap();
        assert_eq!((url.tls, url.host.as_str(), url.port), (true, "2001:db8::1", 8774));
        assert_eq!(url.below("os-server-external-events").path, "/v2.1/os-server-external-events");
        assert_eq!(url.below("a").to_string(), "https://[2001:db8::1]:8774/v2.1/a");
        let url = Url::read("http://controller.example/hook?x=1").unwrap();
        assert_eq!((url.tls, url.port, url.path.as_str()), (false, 80, "/hook?x=1"));
        assert_eq!(Url::read("https://controller").unwrap().path, "/");
        for bad in
            ["", "controller", "/v3", "ftp://controller", "https://", "https://user:word@controller", "http://a b", "http://a/#x"]
        {
            assert!(Url::read(bad).is_err(), "{bad}");
        }
    }
}
