//! What `Introspect` says (D-Bus specification, "Introspection Data Format").

use std::fmt::Write;

use super::cache;

/// The agent's own interface.
pub(super) const AGENT: &str = "org.nicd.Agent1.Manager";

/// A port's interface.
pub(super) const PORT: &str = "org.nicd.Agent1.Port";

/// The specification's own interfaces.
pub(super) const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";
pub(super) const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";
pub(super) const PEER: &str = "org.freedesktop.DBus.Peer";
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

const HEAD: &str = r#"<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
 <interface name="org.freedesktop.DBus.Introspectable">
  <method name="Introspect"><arg name="data" type="s" direction="out"/></method>
 </interface>
 <interface name="org.freedesktop.DBus.Peer">
  <method name="Ping"/>
 </interface>
"#;

const WITH_PROPERTIES: &str = r#" <interface name="org.freedesktop.DBus.Properties">
  <method name="Get">
   <arg name="interface" type="s" direction="in"/>
   <arg name="property" type="s" direction="in"/>
   <arg name="value" type="v" direction="out"/>
  </method>
  <method name="GetAll">
   <arg name="interface" type="s" direction="in"/>
   <arg name="properties" type="a{sv}" direction="out"/>
  </method>
  <method name="Set">
   <arg name="interface" type="s" direction="in"/>
   <arg name="property" type="s" direction="in"/>
   <arg name="value" type="v" direction="in"/>
  </method>
  <signal name="PropertiesChanged">
   <arg name="interface" type="s"/>
   <arg name="changed" type="a{sv}"/>
   <arg name="invalidated" type="as"/>
  </signal>
 </interface>
"#;

const THE_AGENT: &str = r#" <interface name="org.freedesktop.DBus.ObjectManager">
  <method name="GetManagedObjects"><arg name="objects" type="a{oa{sa{sv}}}" direction="out"/></method>
  <signal name="InterfacesAdded">
   <arg name="object" type="o"/>
   <arg name="interfaces" type="a{sa{sv}}"/>
  </signal>
  <signal name="InterfacesRemoved">
   <arg name="object" type="o"/>
   <arg name="interfaces" type="as"/>
  </signal>
 </interface>
 <interface name="org.nicd.Agent1.Manager">
  <method name="ListPorts">
   <arg name="offset" type="u" direction="in"/>
   <arg name="limit" type="u" direction="in"/>
   <arg name="ports" type="a(oss)" direction="out"/>
  </method>
  <property name="Version" type="s" access="read">
   <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="const"/>
  </property>
  <property name="PortCount" type="u" access="read">
   <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="false"/>
  </property>
 </interface>
"#;

const A_PORT: &str = r#"  <method name="OpenTap"><arg name="queues" type="ah" direction="out"/></method>
  <signal name="StatusChanged">
   <arg name="old" type="s"/>
   <arg name="new" type="s"/>
   <arg name="reason" type="s"/>
  </signal>
 </interface>
"#;

/// An object with interfaces of its own and children.
pub(super) fn node(own: &str, children: impl IntoIterator<Item = String>) -> String {
    let mut text = format!("{HEAD}{own}");
    for child in children {
        // Writing to a string cannot fail.
        let _ = writeln!(text, " <node name=\"{child}\"/>");
    }
    text.push_str("</node>\n");
    text
}

/// The agent's interfaces.
pub(super) fn agent() -> String {
    format!("{WITH_PROPERTIES}{THE_AGENT}")
}

/// A port's interfaces.
pub(super) fn port() -> String {
    let mut text = format!("{WITH_PROPERTIES} <interface name=\"{PORT}\">\n");
    for (name, kind) in cache::PROPERTIES {
        let end = match name {
            "Id" => "><annotation name=\"org.freedesktop.DBus.Property.EmitsChangedSignal\" value=\"const\"/></property>",
            _ => "/>",
        };
        let _ = writeln!(text, "  <property name=\"{name}\" type=\"{kind}\" access=\"read\"{end}");
    }
    text.push_str(A_PORT);
    text
}
