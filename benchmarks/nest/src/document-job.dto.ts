// What POST /api/jobs/document-processing takes: the rules of Hookline's `DocumentJob` (pipeline/api/jobs.py, fields.py).
import { Buffer } from 'node:buffer';
import { IsInt, IsString, Matches, Max, MaxLength, Min, ValidateBy, type ValidationOptions } from 'class-validator';

const ID = /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}$/;
// A file's name: no / \ or control characters, and not . or .. or .hookline.
const FILENAME = /^(?!(?:\.{1,2}|\.hookline)$)[^/\\\u0000-\u001f\u007f-\u009f]+$/;
// A media type, with or without parameters, or nothing where it is not known.
const MIME = /^\s*(?:[A-Za-z0-9!#$&^_.+-]{1,127}\/[A-Za-z0-9!#$&^_.+-]{1,127}\s*)?(?:;.*)?$/s;

function MaxBytes(limit: number, options?: ValidationOptions): PropertyDecorator {
  const validate = (value: unknown): boolean => typeof value === 'string' && Buffer.byteLength(value) <= limit;
  return ValidateBy({ name: 'maxBytes', validator: { validate, defaultMessage: () => `$property must have at most ${limit} bytes in UTF-8` } }, options);
}

export class DocumentJob {
  @IsString()
  @Matches(ID)
  documentId: string;

  @IsString()
  @Matches(ID)
  userId: string;

  @IsString()
  @Matches(FILENAME)
  @MaxBytes(255)
  filename: string;

  @IsString()
  @MaxLength(255)
  @Matches(MIME)
  mimeType: string;

  @IsInt()
  @Min(0)
  @Max(Number.MAX_SAFE_INTEGER)
  fileSize: number;
}
