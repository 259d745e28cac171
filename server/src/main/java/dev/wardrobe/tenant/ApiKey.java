package dev.wardrobe.tenant;

import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.zip.CRC32;

/**
 * A secret that a caller shows: {@code wardrobe_}, 256 random bits in 43 letters and digits, and 6
 * of their CRC-32.
 *
 * <p>The prefix lets scanners of sources and logs find keys that got where they do not belong; the
 * checksum tells a mistyped or cut key from an unknown one, without looking it up. What is kept of
 * a key is its SHA-256. That is enough, without salt and without a function that is slow on
 * purpose: those protect what people choose, of which there are few enough to try; of
 * 2<sup>256</sup> keys none is found by trying, however fast, no two are equal, and no table of
 * them can be made.
 */
public final class ApiKey {
  private static final String PREFIX = "wardrobe_";

  private static final String DIGITS =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  private static final BigInteger BASE = BigInteger.valueOf(DIGITS.length());
  private static final int SECRET_BITS = 256;
  private static final int SECRET_LENGTH = 43;
  private static final int CHECKSUM_LENGTH = 6;
  private static final int LENGTH = PREFIX.length() + SECRET_LENGTH + CHECKSUM_LENGTH;

  private ApiKey() {}

  /** A new key. */
  public static String create() {
    String text = PREFIX + digits(new BigInteger(SECRET_BITS, new SecureRandom()), SECRET_LENGTH);
    return text + checksum(text);
  }

  /** Whether a text is a key, known or not. */
  public static boolean isWellFormed(String text) {
    if (text.length() != LENGTH || !text.startsWith(PREFIX)) {
      return false;
    }
    for (int i = PREFIX.length(); i < LENGTH; i++) {
      if (DIGITS.indexOf(text.charAt(i)) < 0) {
        return false;
      }
    }
    int end = LENGTH - CHECKSUM_LENGTH;
    return checksum(text.substring(0, end)).equals(text.substring(end));
  }

  /** The SHA-256 of a key, in hexadecimal digits. */
  static String hash(String key) {
    try {
      return HexFormat.of()
          .formatHex(
              MessageDigest.getInstance("SHA-256").digest(key.getBytes(StandardCharsets.UTF_8)));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java has SHA-256", e);
    }
  }

  private static String checksum(String text) {
    CRC32 crc = new CRC32();
    crc.update(text.getBytes(StandardCharsets.UTF_8));
    return digits(BigInteger.valueOf(crc.getValue()), CHECKSUM_LENGTH);
  }

  /** A number to the base of the digits, highest first. */
  private static String digits(BigInteger number, int length) {
    char[] text = new char[length];
    BigInteger rest = number;
    for (int i = length - 1; i >= 0; i--) {
      BigInteger[] parts = rest.divideAndRemainder(BASE);
      text[i] = DIGITS.charAt(parts[1].intValue());
      rest = parts[0];
    }
    return new String(text);
  }
}
