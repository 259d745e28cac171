package dev.wardrobe.serve;

/**
 * What a token is in a text.
 *
 * @param bytes what it adds, which may be a part of a character; of a special token its name
 * @param first the same at the start of a text
 * @param special whether it adds nothing, and only its name can be told
 */
@SuppressWarnings("ArrayRecordComponent")
public record Piece(byte[] bytes, byte[] first, boolean special) {}
