package dev.wardrobe.grammar;

import java.util.Map;
import java.util.TreeMap;

/** What strings of a format look like. Each is a part of what the format allows, and no more. */
final class Formats {
  private static final String DATE =
      "(\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)"
          + "|02-(0[1-9]|1\\d|2[0-8]))"
          + "|(\\d{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)";

  private static final String TIME =
      "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|([+]00|[+-](0[1-9]|1[0-7])):[0-5]\\d)";

  private static final String LABEL = "[A-Za-z0-9]{1,30}(-[A-Za-z0-9]{1,15}){0,2}";
  private static final String BYTE = "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
  private static final String IPV4 = BYTE + "(\\." + BYTE + "){3}";
  private static final String GROUP = "[0-9a-fA-F]{1,4}";
  private static final String ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}";
  private static final String PATH = "([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*";

  private static final Map<String, String> PATTERNS =
      new TreeMap<>(
          Map.ofEntries(
              Map.entry("date", DATE),
              Map.entry("time", TIME),
              Map.entry("date-time", DATE + "T" + TIME),
              Map.entry(
                  "duration",
                  "P((\\d{1,9}D|\\d{1,9}M(\\d{1,9}D)?|\\d{1,9}Y(\\d{1,9}M(\\d{1,9}D)?)?)"
                      + "(T(\\d{1,9}H(\\d{1,9}M(\\d{1,9}S)?)?|\\d{1,9}M(\\d{1,9}S)?|\\d{1,9}S))?"
                      + "|T(\\d{1,9}H(\\d{1,9}M(\\d{1,9}S)?)?|\\d{1,9}M(\\d{1,9}S)?|\\d{1,9}S)"
                      + "|\\d{1,9}W)"),
              Map.entry(
                  "email",
                  ATOM
                      + "(\\."
                      + ATOM
                      + "){0,2}@"
                      + LABEL
                      + "(\\."
                      + LABEL
                      + ")?\\.[A-Za-z]{2,20}"),
              Map.entry("hostname", LABEL + "(\\." + LABEL + "){0,2}"),
              Map.entry("ipv4", IPV4),
              Map.entry(
                  "ipv6",
                  "((G:){7}G|(G:){1,7}:|(G:){1,6}:G|(G:){1,5}(:G){1,2}|(G:){1,4}(:G){1,3}"
                          .replace("G", GROUP)
                      + "|(G:){1,3}(:G){1,4}|(G:){1,2}(:G){1,5}|G:(:G){1,6}|:((:G){1,7}|:))"
                          .replace("G", GROUP)),
              Map.entry("uuid", "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
              Map.entry(
                  "uri",
                  "[A-Za-z][A-Za-z0-9+.-]{0,20}://"
                      + LABEL
                      + "(\\."
                      + LABEL
                      + "){0,2}(:[1-9]\\d{0,3})?(/"
                      + PATH
                      + ")?(\\?([?]|"
                      + PATH.substring(1, PATH.length() - 2)
                      + ")*)?(#"
                      + PATH
                      + ")?"),
              Map.entry("json-pointer", "(/([^~/]|~[01])*)*")));

  private Formats() {}

  static boolean isKnown(String format) {
    return PATTERNS.containsKey(format);
  }

  static String known() {
    return String.join(", ", PATTERNS.keySet());
  }

  /** Strings of a known format, without quotes. */
  static Automaton of(String format, Budget budget) throws GrammarException {
    String pattern = PATTERNS.get(format);
    if (pattern == null) {
      throw new GrammarException("the format '%s' is not supported".formatted(format));
    }
    return Regex.whole(pattern, Spelling.JSON, budget);
  }
}
