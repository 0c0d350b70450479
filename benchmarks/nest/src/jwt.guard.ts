// Lets in who carries a JWT signed with the shared secret (HS256, `exp` and `sub` required), as NestJS's documentation writes such a guard.
import { type CanActivate, type ExecutionContext, Injectable, UnauthorizedException } from '@nestjs/common';
import { JwtService } from '@nestjs/jwt';
import type { FastifyRequest } from 'fastify';

export interface Claims {
  sub: string;
  role?: string;
  exp: number;
}
export type SignedIn = FastifyRequest & { user: Claims };

@Injectable()
export class JwtGuard implements CanActivate {
  constructor(private readonly jwt: JwtService) {}

  canActivate(context: ExecutionContext): boolean {
    const request = context.switchToHttp().getRequest<SignedIn>();
    const [scheme, token] = request.headers.authorization?.split(' ') ?? [];
    if (scheme !== 'Bearer' || !token) throw new UnauthorizedException('a token is needed');
    let claims: Claims;
    try {
      claims = this.jwt.verify<Claims>(token);
    } catch {
      throw new UnauthorizedException('the token is not valid');
    }
    if (!claims.sub || !claims.exp) throw new UnauthorizedException('the token has no sub or exp');
    request.user = claims;
    return true;
  }
}
