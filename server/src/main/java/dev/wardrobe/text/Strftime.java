package dev.wardrobe.text;

import java.time.DayOfWeek;
import java.time.LocalDateTime;
import java.time.ZoneId;
import java.time.format.TextStyle;
import java.time.temporal.IsoFields;
import java.util.Locale;

/** C's {@code strftime} in the C locale, with glibc's flags {@code - _ 0 ^ #}. */
final class Strftime {

  private Strftime() {}

  static String format(String format, LocalDateTime time) {
    StringBuilder out = new StringBuilder();
    int i = 0;
    while (i < format.length()) {
      char c = format.charAt(i++);
      if (c != '%' || i == format.length()) {
        out.append(c);
        continue;
      }
      int start = i - 1;
      char flag = 0;
      while (i < format.length() && "-_0^#".indexOf(format.charAt(i)) >= 0) {
        flag = format.charAt(i++);
      }
      if (i == format.length()) {
        out.append(format, start, i);
        break;
      }
      String text = directive(format.charAt(i++), flag, time);
      if (text == null) {
        out.append(format, start, i);
      } else {
        out.append(flag == '^' ? text.toUpperCase(Locale.ROOT) : text);
      }
      Budget.growing(out);
    }
    return Budget.made(out.toString());
  }

  private static @org.jspecify.annotations.Nullable String directive(
      char directive, char flag, LocalDateTime time) {
    return switch (directive) {
      case 'a' -> day(time, TextStyle.SHORT);
      case 'A' -> day(time, TextStyle.FULL);
      case 'b', 'h' -> time.getMonth().getDisplayName(TextStyle.SHORT, Locale.ENGLISH);
      case 'B' -> time.getMonth().getDisplayName(TextStyle.FULL, Locale.ENGLISH);
      case 'c' -> format("%a %b %e %H:%M:%S %Y", time);
      case 'C' -> number(time.getYear() / 100, 2, '0', flag);
      case 'd' -> number(time.getDayOfMonth(), 2, '0', flag);
      case 'D', 'x' -> format("%m/%d/%y", time);
      case 'e' -> number(time.getDayOfMonth(), 2, ' ', flag);
      case 'f' -> number(time.getNano() / 1000, 6, '0', (char) 0);
      case 'F' -> format("%Y-%m-%d", time);
      case 'G' -> number(time.get(IsoFields.WEEK_BASED_YEAR), 4, '0', flag);
      case 'g' -> number(time.get(IsoFields.WEEK_BASED_YEAR) % 100, 2, '0', flag);
      case 'H' -> number(time.getHour(), 2, '0', flag);
      case 'I' -> number(twelve(time), 2, '0', flag);
      case 'j' -> number(time.getDayOfYear(), 3, '0', flag);
      case 'k' -> number(time.getHour(), 2, ' ', flag);
      case 'l' -> number(twelve(time), 2, ' ', flag);
      case 'm' -> number(time.getMonthValue(), 2, '0', flag);
      case 'M' -> number(time.getMinute(), 2, '0', flag);
      case 'n' -> "\n";
      case 'p' -> half(time, flag);
      case 'P' -> half(time, flag).toLowerCase(Locale.ROOT);
      case 'r' -> format("%I:%M:%S %p", time);
      case 'R' -> format("%H:%M", time);
      case 's' -> Long.toString(time.atZone(ZoneId.systemDefault()).toEpochSecond());
      case 'S' -> number(time.getSecond(), 2, '0', flag);
      case 't' -> "\t";
      case 'T', 'X' -> format("%H:%M:%S", time);
      case 'u' -> number(time.getDayOfWeek().getValue(), 1, '0', flag);
      case 'U' -> number(week(time, DayOfWeek.SUNDAY), 2, '0', flag);
      case 'V' -> number(time.get(IsoFields.WEEK_OF_WEEK_BASED_YEAR), 2, '0', flag);
      case 'w' -> number(time.getDayOfWeek().getValue() % 7, 1, '0', flag);
      case 'W' -> number(week(time, DayOfWeek.MONDAY), 2, '0', flag);
      case 'y' -> number(time.getYear() % 100, 2, '0', flag);
      case 'Y' -> number(time.getYear(), 1, '0', flag);
      // A time without a zone has neither a name nor an offset for it.
      case 'z', 'Z' -> "";
      case '%' -> "%";
      default -> null;
    };
  }

  private static String day(LocalDateTime time, TextStyle style) {
    return time.getDayOfWeek().getDisplayName(style, Locale.ENGLISH);
  }

  private static String half(LocalDateTime time, char flag) {
    String half = time.getHour() < 12 ? "AM" : "PM";
    return flag == '#' ? half.toLowerCase(Locale.ROOT) : half;
  }

  private static int twelve(LocalDateTime time) {
    int hour = time.getHour() % 12;
    return hour == 0 ? 12 : hour;
  }

  private static int week(LocalDateTime time, DayOfWeek first) {
    int day = Math.floorMod(time.getDayOfWeek().getValue() - first.getValue(), 7);
    return (time.getDayOfYear() - 1 + 7 - day) / 7;
  }

  private static String number(int value, int width, char padding, char flag) {
    String digits = Integer.toString(value);
    char pad = flag == '_' ? ' ' : flag == '0' ? '0' : padding;
    if (flag == '-' || digits.length() >= width) {
      return digits;
    }
    return String.valueOf(pad).repeat(width - digits.length()) + digits;
  }
}
